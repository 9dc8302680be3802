from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from frontend.http.app import create_app
from frontend.settings import Settings
from tests.fakes.bad_masks import BAD_EXTRACTS, BAD_MASKS, BadMask, mask_request
from tests.fakes.triton_server import FakeTriton
from tests.fakes.web_client import WebClient
from tests.frontend.conftest import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = [*BAD_MASKS, *BAD_EXTRACTS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hardened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebClient]:
    """Provide a client of one server that meets the whole table."""
    state = tmp_path_factory.mktemp("state")
    async with FakeTriton() as triton:
        # Decoding may keep the machine from answering pings for a while.
        settings = Settings(
            triton_url=triton.url, log_level="error", state_folder=state, ping_timeout_s=10
        )
        app = create_app(settings)
        async with listening(app) as url, WebClient(url) as client:
            yield client


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_is_refused_naming_the_field(hardened: WebClient, case: BadMask) -> None:
    headers = {"Content-Type": case.content_type}
    answer = await hardened.http.post(case.path, content=case.content, headers=headers)
    assert answer.status_code == case.status, answer.text
    assert list(answer.json()) == ["detail"]
    detail = answer.json()["detail"]
    assert detail.startswith(case.detail), detail
    assert len(detail) < 600
    assert " object at " not in detail
    assert "Traceback" not in detail


async def test_good_input_is_accepted_after_all_that(hardened: WebClient) -> None:
    answer = await hardened.http.post("/api/smart-mask", json=mask_request())
    assert answer.status_code == 200, answer.text


async def test_the_tables_are_long_and_their_names_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 80
