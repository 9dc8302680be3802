from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frontend.errors import TritonAwayError
from frontend.triton.client import TritonClient
from frontend.triton.edit_tensors import IMAGE_EDIT
from frontend.triton.watch import TritonWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.domain import EditModelState
    from tests.fakes.triton_server import FakeTriton

    Watch = TritonWatch[EditModelState]


@pytest.fixture
async def watch(triton: FakeTriton) -> AsyncIterator[Watch]:
    client = TritonClient(triton.url)
    yield TritonWatch(client, IMAGE_EDIT, client.cancel_edit, timeout_s=0.2)
    await client.close()


async def test_triton_is_away_until_it_has_answered(watch: Watch) -> None:
    assert watch.state is None
    with pytest.raises(TritonAwayError, match="has not answered yet"):
        watch.require()
    await watch.beat()
    assert watch.require().adapters == {"insertion", "removal", "white-balance"}


async def test_one_missing_answer_is_forgiven(watch: Watch, triton: FakeTriton) -> None:
    await watch.beat()
    triton.behaviour.deaf = True
    await watch.beat()
    assert watch.state is not None
    triton.behaviour.deaf = False
    await watch.beat()
    triton.behaviour.deaf = True
    await watch.beat()
    assert watch.state is not None
    await watch.beat()
    with pytest.raises(TritonAwayError, match="does not answer"):
        watch.require()


async def test_an_error_is_believed_at_once(watch: Watch, triton: FakeTriton) -> None:
    await watch.beat()
    triton.behaviour.unknown = True
    await watch.beat()
    with pytest.raises(TritonAwayError, match="is not healthy"):
        watch.require()


async def test_what_was_lost_is_found_again(watch: Watch) -> None:
    await watch.beat()
    watch.lose("a stream broke")
    assert watch.reason == "a stream broke"
    assert watch.state is None
    await watch.beat()
    assert watch.state is not None


async def test_a_returning_triton_is_checked_again(watch: Watch, triton: FakeTriton) -> None:
    await watch.beat()
    del triton.behaviour.config.output[0]
    await watch.beat()
    assert watch.state is not None
    watch.lose("restarted")
    await watch.beat()
    with pytest.raises(TritonAwayError, match=r"output STAGE TYPE_STRING .* is missing"):
        watch.require()
