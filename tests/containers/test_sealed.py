"""The stack in networks without a way out, brought up from nothing and taken down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.web_client import decode, scene, square_mask
from tests.integration.mask_scenes import scene as drawn_scene

from .stack import FOLDER, SERVICES, running

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("container", "volume", "network")


def test_serving_needs_no_way_out_and_leaves_nothing(overrides: tuple[Path, ...]) -> None:
    with running("artmancer-test-sealed", *overrides, FOLDER / "sealed.compose.yml") as stack:
        for service in SERVICES:
            routes = stack.execute(service, "cat", "/proc/net/route").splitlines()[1:]
            assert routes
            assert all(line.split()[1] != "00000000" for line in routes), routes

        def put(name: str, data: bytes) -> str:
            path = f"/tmp/{name}"
            stack.execute("frontend", "sh", "-c", f"cat > {path}", stdin=data)
            return path

        def get(path: str) -> bytes:
            return stack.compose("exec", "-T", "frontend", "cat", path)

        picture, mask = put("picture.png", scene()), put("mask.png", square_mask())
        edited = ["--mask", mask, "--steps=2", "--quality=original", "--out=/tmp/edited.png"]
        stack.execute("frontend", "artmancer", "edit", "--image", picture, *edited)
        assert decode(get("/tmp/edited.png")).shape == (64, 64, 3)
        drawn = drawn_scene(1)
        click = [f"--point={','.join(map(str, drawn.middle))}", "--out=/tmp/found.png"]
        photo = put("photo.png", drawn.png)
        stack.execute("frontend", "artmancer", "mask", "--image", photo, *click)
        assert decode(get("/tmp/found.png")).shape[:2] == drawn.truth.shape
        assert all(stack.leftovers(kind) for kind in KINDS)
    assert [stack.leftovers(kind) for kind in KINDS] == [[], [], []]
