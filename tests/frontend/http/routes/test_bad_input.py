from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from frontend.http.app import create_app
from frontend.settings import Settings
from tests.fakes.bad_inputs import BAD_INPUTS, BadInput
from tests.fakes.triton_server import FakeTriton
from tests.fakes.web_client import WebClient
from tests.frontend.conftest import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
