"""The demo bundle needs its adapters and the order of the conditions to edit well."""

import functools
import statistics

import pytest

from export.demo_edits import bundle as demo_bundle
from export.demo_edits.results import Editor, held_out, scores
from export.demo_edits.samples import Flow
from export.serving_code import Task

SIZE = 256
# A reference's colour differs most from scene to scene.
SCENES = {Flow.WHITE_BALANCE: 2, Flow.REFERENCE: 3, Flow.REMOVAL: 2}
# What an adapter does to a cast of light needs as many to show.
STEPS = {Flow.WHITE_BALANCE: 8, Flow.REFERENCE: 4, Flow.REMOVAL: 4}
# Flow -> the scores whose sum judges it, and by how much the sum must get worse: degrees or shades
# up, or dB down. The base knows the tasks from their prompts; without an adapter it is worst at
# insertions. Removal's conditions show a filling. Another adapter copies the filling well, but not
# the surroundings.
MEASURES: dict[Flow, tuple[tuple[str, ...], float]] = {
    Flow.WHITE_BALANCE: (("angle",), 1.2),
    Flow.REFERENCE: (("colour",), 25.0),
    Flow.REMOVAL: (("inside", "outside"), -2.0),
}


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor(demo_bundle.SHIPPED)


@functools.cache
def measured(
    editor: Editor, flow: Flow, adapter: str | None = None, order: tuple[int, ...] | None = None
) -> float:
    names, _ = MEASURES[flow]
    found = []
    for index in range(SCENES[flow]):
        sample = held_out(flow, index, SIZE)
        score = scores(sample, editor.edit(sample, STEPS[flow], adapter=adapter, order=order))
        found.append(sum(score[name] for name in names))
    return statistics.fmean(found)


def is_worse(flow: Flow, right: float, wrong: float) -> bool:
    _, margin = MEASURES[flow]
    return wrong > right + margin if margin > 0 else wrong < right + margin


@pytest.mark.slow
@pytest.mark.parametrize("flow", MEASURES)
def test_another_adapter_or_none_is_worse(editor: Editor, flow: Flow) -> None:
    right = measured(editor, flow)
    for task in Task:
        if task != flow.task:
            assert is_worse(flow, right, measured(editor, flow, adapter=str(task))), task
    editor.transformer.disable_lora()
    try:
        assert is_worse(flow, right, measured.__wrapped__(editor, flow))
    finally:
        editor.transformer.enable_lora()


@pytest.mark.slow
@pytest.mark.parametrize("flow", MEASURES)
def test_swapped_conditions_are_worse(editor: Editor, flow: Flow) -> None:
    swapped = {
        Flow.WHITE_BALANCE: (1, 0),
        Flow.REFERENCE: (0, 2, 1),
        Flow.REMOVAL: (0, 2, 1),
    }[flow]
    assert is_worse(flow, measured(editor, flow), measured(editor, flow, order=swapped))
