"""What makes the demo bundle edit: its adapters and the order of the conditions, each needed."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from export import manifest
from export.edit_results import Editor, held_out, scores
from export.edit_samples import Flow
from export.serving_code import Task

BUNDLE = Path(__file__).parents[2] / "bundles" / "demo"
SIZE, SCENES = 256, 3
# What a flow is judged by, and by how much it must get worse: degrees up, or dB down.
MEASURES = {
    Flow.WHITE_BALANCE: ("angle", 2.0),
    Flow.REFERENCE: ("outside", -6.0),
    Flow.REMOVAL: ("outside", -6.0),
}


def trained() -> bool:
    """Whether the bundle says how it was trained."""
    try:
        return "training" in manifest.verify(BUNDLE)
    except manifest.BundleError:
        return False


pytestmark = [
    pytest.mark.skipif(not trained(), reason="the demo bundle's weights are random"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor(BUNDLE)


def measured(
    editor: Editor, flow: Flow, adapter: str | None = None, order: Sequence[int] | None = None
) -> float:
    name, _ = MEASURES[flow]
    found = []
    for index in range(SCENES):
        sample = held_out(flow, index, SIZE)
        found.append(scores(sample, editor.edit(sample, adapter=adapter, order=order))[name])
    return statistics.fmean(found)


def is_worse(flow: Flow, right: float, wrong: float) -> bool:
    _, margin = MEASURES[flow]
    return wrong > right + margin if margin > 0 else wrong < right + margin


@pytest.mark.parametrize("flow", MEASURES)
def test_another_adapter_or_none_is_worse(editor: Editor, flow: Flow) -> None:
    right = measured(editor, flow)
    for task in Task:
        if task != flow.task:
            assert is_worse(flow, right, measured(editor, flow, adapter=str(task))), task
    with editor.without_adapters():
        assert is_worse(flow, right, measured(editor, flow))


@pytest.mark.parametrize("flow", MEASURES)
def test_swapped_conditions_are_worse(editor: Editor, flow: Flow) -> None:
    swapped = {
        Flow.WHITE_BALANCE: (1, 0),
        Flow.REFERENCE: (0, 2, 1),
        Flow.REMOVAL: (0, 2, 1),
    }[flow]
    assert is_worse(flow, measured(editor, flow), measured(editor, flow, order=swapped))
