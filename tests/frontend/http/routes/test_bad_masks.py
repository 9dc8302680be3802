from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.bad_masks import BAD_EXTRACTS, BAD_MASKS, BadMask, mask_request

if TYPE_CHECKING:
    from tests.fakes.web_client import WebClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = [*BAD_MASKS, *BAD_EXTRACTS]


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
