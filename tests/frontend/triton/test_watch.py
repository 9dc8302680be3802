from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from frontend.errors import TritonDownError
from frontend.triton.client import TritonClient
from frontend.triton.edit_tensors import IMAGE_EDIT
from frontend.triton.watch import TritonWatch
from tests.fakes.triton_server import DEAD, UNLOADED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.domain.models import EditModelState
    from tests.fakes.triton_server import FakeTriton

    Watch = TritonWatch[EditModelState]


@pytest.fixture
async def watch(triton: FakeTriton) -> AsyncIterator[Watch]:
    client = TritonClient(triton.url)
    yield TritonWatch(client, IMAGE_EDIT, client.cancel_edit, timeout_s=10)
    await client.close()


async def miss_a_ping(watch: Watch, triton: FakeTriton) -> None:
    """Send a ping that gets no answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.behaviour, "deaf", True)
        patch.setattr(watch, "_timeout_s", 0.1)
        await watch.ping()


async def test_triton_is_away_until_it_has_answered(watch: Watch) -> None:
    assert watch.state is None
    with pytest.raises(TritonDownError, match="has not answered yet"):
        watch.require()
    await watch.ping()
    assert watch.require().adapters == {"insertion", "removal", "white-balance"}


async def test_one_missing_answer_is_forgiven(watch: Watch, triton: FakeTriton) -> None:
    await watch.ping()
    await miss_a_ping(watch, triton)
    assert watch.state is not None
    await watch.ping()
    await miss_a_ping(watch, triton)
    assert watch.state is not None
    await miss_a_ping(watch, triton)
    with pytest.raises(TritonDownError, match="does not answer"):
        watch.require()


async def test_the_log_names_a_triton_that_does_not_answer_once_for_each_outage(
    watch: Watch, triton: FakeTriton
) -> None:
    await triton.kill()
    with capture_logs() as entries:
        for _ in range(3):
            await watch.ping()
        [down] = entries
        assert (down["event"], down["log_level"]) == ("triton_down", "warning")
        assert (down["model"], down["address"]) == ("image_edit", triton.url)
        assert "Connection refused" in down["reason"]
        assert watch.reason == "Triton is not available"  # clients are told no addresses
        await triton.start()
        while watch.state is None:
            await watch.ping()
        for _ in range(2):
            watch.mark_down(TritonDownError("a stream broke"))
    assert [each["event"] for each in entries] == ["triton_down", "triton_ready", "triton_down"]
    assert entries[-1]["reason"] == "a stream broke"


async def test_an_error_is_believed_at_once(watch: Watch, triton: FakeTriton) -> None:
    await watch.ping()
    triton.behaviour.ping_error = DEAD
    await watch.ping()
    with pytest.raises(TritonDownError, match="is not healthy"):
        watch.require()


@pytest.mark.parametrize(
    ("answer", "lost"), [(DEAD, True), (UNLOADED, False), ("[INTERNAL] no memory", False)]
)
async def test_an_error_may_leave_the_model_its_requests(
    watch: Watch, triton: FakeTriton, answer: str, lost: bool
) -> None:
    await watch.ping()
    assert not watch.requests_lost
    triton.behaviour.ping_error = answer
    await watch.ping()
    assert watch.state is None
    assert watch.requests_lost == lost
    triton.behaviour.ping_error = ""
    await watch.ping()
    assert not watch.requests_lost


async def test_what_was_lost_is_found_again(watch: Watch) -> None:
    await watch.ping()
    watch.mark_down(TritonDownError("a stream broke"))
    assert watch.reason == "a stream broke"
    assert watch.state is None
    await watch.ping()
    assert watch.state is not None


async def test_a_returning_triton_is_checked_again(watch: Watch, triton: FakeTriton) -> None:
    await watch.ping()
    del triton.behaviour.config.output[0]
    await watch.ping()
    assert watch.state is not None
    watch.mark_down(TritonDownError("restarted"))
    await watch.ping()
    with pytest.raises(TritonDownError, match=r"output STAGE TYPE_STRING .* is missing"):
        watch.require()
