from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.fakes.bad_inputs import BAD_INPUTS, BadInput
from tests.fakes.pictures import b64, encoded
from tests.integration.web_client import WebClient, edit

if TYPE_CHECKING:
    from tests.frontend.conftest import Serve


def test_the_table_is_long_and_its_names_differ() -> None:
    assert len({case.name for case in BAD_INPUTS}) == len(BAD_INPUTS) >= 40


@pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: case.name)
async def test_bad_input_is_refused_naming_the_field(client: WebClient, case: BadInput) -> None:
    headers = {"Content-Type": case.content_type}
    for path in ("/api/generate", "/api/generate/async"):
        answer = await client.http.post(path, content=case.content, headers=headers)
        assert answer.status_code == 400, answer.text
        assert list(answer.json()) == ["detail"]
        detail = answer.json()["detail"]
        assert detail.startswith(case.field), detail
        assert len(detail) < 500
        assert "Traceback" not in detail
