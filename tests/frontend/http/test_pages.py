"""Pages for people: they load what they need from this server alone, and lead somewhere."""

from __future__ import annotations

import html.parser
import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from frontend.http.app import create_app

if TYPE_CHECKING:
    from tests.fakes.web_client import WebClient

# What a browser loads by itself, by tag and attribute; a link that waits for a click is none.
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("source", "src"), ("iframe", "src")}
CSS_URL = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")


class Assets(html.parser.HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            if (tag, name) in LOADED and value:
                self.found.append(value)
            if name == "style" and value:
                self.found += CSS_URL.findall(value)

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += CSS_URL.findall(data)


async def pages(client: WebClient) -> dict[str, str]:
    """Return every page of HTML that a plain GET gets, by its path."""
    paths = [
        route.path
        for route in create_app().routes
        if isinstance(route, Route | APIRoute) and "GET" in (route.methods or ())
    ]
    found = {}
    for path in paths:
        if "{" not in path:
            answer = await client.http.get(path)
            if answer.headers.get("content-type", "").startswith("text/html"):
                assert answer.status_code == 200
                found[path] = answer.text
    return found


async def test_every_page_loads_from_this_server_alone(client: WebClient) -> None:
    found = await pages(client)
    assert {"/docs", "/redoc"} <= found.keys()
    asked = set()
    for path, page in found.items():
        queue = [urljoin(path, asset) for asset in Assets(page).found]
        for asset in queue:
            if asset.startswith("data:") or asset in asked:
                continue
            assert not re.match(r"(\w+:)?//", asset), f"{path} loads {asset}"
            asked.add(asset)
            answer = await client.http.get(asset)
            assert answer.status_code == 200, f"{path} loads {asset}"
            if answer.headers["content-type"].startswith("text/css"):
                queue += [urljoin(asset, url) for url in CSS_URL.findall(answer.text)]
    assert len([asset for asset in asked if asset.endswith(".js")]) >= 2
    assert [asset for asset in asked if asset.endswith(".css")]


def test_what_a_page_loads_is_seen() -> None:
    page = """<link href="a"><script src="b"></script><style>@import "c"; x{y:url(d)}</style>
        <img src="e"><p style="background: url('f')"><a href="not-loaded">url(not-style)</a>"""
    assert Assets(page).found == list("abcdef")


def test_the_app_has_no_page_that_is_not_a_route() -> None:
    mounts = [route.path for route in create_app().routes if isinstance(route, Mount)]
    assert mounts == ["/static-offline-docs"]


async def test_the_root_leads_to_the_documentation(client: WebClient) -> None:
    answer = await client.http.get("/")
    assert answer.is_redirect
    assert httpx.URL(str(answer.url)).join(answer.headers["location"]).path == "/docs"


async def test_every_endpoint_has_a_summary_of_its_own(client: WebClient) -> None:
    description = (await client.http.get("/openapi.json")).json()
    paths = description["paths"]
    operations = [operation for each in paths.values() for operation in each.values()]
    summaries = [operation["summary"] for operation in operations]
    assert len(set(summaries)) == len(summaries)
    names = {route.name for route in create_app().routes if isinstance(route, APIRoute)}
    assert names.isdisjoint(summary.lower().replace(" ", "_") for summary in summaries)
    assert all(len(operation["tags"]) == 1 for operation in operations)
    assert all(operation["description"] for operation in operations)
    tags = {tag["name"]: tag["description"] for tag in description["tags"]}
    assert {tag for operation in operations for tag in operation["tags"]} == tags.keys()
    assert all(tags.values())


async def test_every_parameter_is_described_and_one_thing_has_one_name(client: WebClient) -> None:
    paths = (await client.http.get("/openapi.json")).json()["paths"]
    parameters = [
        (path, parameter)
        for path, each in paths.items()
        for operation in each.values()
        for parameter in operation.get("parameters", ())
    ]
    assert all(parameter.get("description") for _, parameter in parameters), parameters
    jobs = ("/api/generate/", "/api/visualization/")
    names = {
        parameter["name"]
        for path, parameter in parameters
        if parameter["in"] == "path" and path.startswith(jobs)
    }
    assert names == {"task_id"}
