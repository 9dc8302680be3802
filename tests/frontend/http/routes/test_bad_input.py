from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frontend.http.schemas.edits import BAD_REGION
from tests.fakes.bad_inputs import BAD_INPUTS, BadInput
from tests.fakes.web_client import edit

if TYPE_CHECKING:
    from tests.fakes.web_client import WebClient

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: case.name)
async def test_bad_input_is_refused_naming_the_field(hardened: WebClient, case: BadInput) -> None:
    headers = {"Content-Type": case.content_type}
    for path in ("/api/generate", "/api/generate/async"):
        answer = await hardened.http.post(path, content=case.content, headers=headers)
        assert answer.status_code == 400, answer.text
        assert list(answer.json()) == ["detail"]
        detail = answer.json()["detail"]
        assert detail.startswith(case.field), detail
        assert len(detail) < 500
        assert " object at " not in detail
        assert "[_" not in detail
        assert "literal[" not in detail
        assert "Traceback" not in detail


async def test_good_input_is_accepted_after_all_that(hardened: WebClient) -> None:
    await hardened.finish()


async def test_the_table_is_long_and_its_names_differ() -> None:
    assert len({case.name for case in BAD_INPUTS}) == len(BAD_INPUTS) >= 40


@pytest.mark.parametrize(
    ("field", "value", "detail"),
    [
        *(("region", value, BAD_REGION) for value in ("half", [1, 2, 3], [0, 0, 0.5, 1], True)),
        (
            "input_image",
            "examples/cup.png",
            "input_image: Invalid base64 image data or unsupported format: not base64 (Only base64"
            " data is allowed): send the bytes of the file as base64, not its path or address",
        ),
    ],
    ids=str,
)
async def test_a_refusal_is_one_sentence_in_our_own_words(
    hardened: WebClient, field: str, value: object, detail: str
) -> None:
    response = await hardened.http.post("/api/generate/async", json=edit(**{field: value}))
    assert (response.status_code, response.json()["detail"]) == (400, detail)
