"""What attention is asked for: on Hopper, cuDNN makes a plan for every new length and keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from image_edit.engine.engine import EditEngine
from tests.models.image_edit.engine.test_engine import SHIFT, prepared, spec_of

if TYPE_CHECKING:
    from image_edit.engine.bundle import Bundle

EXAMPLES = ("remove the rocket", "remove the ball", "make the light neutral", "remove it")


class Calls(TorchFunctionMode):
    """Notes the layout of queries and keys of each call of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: set[tuple[Any, ...]] = set()
        self.count = 0
        self.by_token = True
        """Whether all were laid out one token after another."""
        self.may_use_cudnn: set[bool] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key = (
                kwargs.get(name, args[index] if index < len(args) else None)
                for index, name in enumerate(("query", "key"))
            )
            # What cuDNN's plans are kept by, as far as two edits may differ.
            self.plans.add((query.shape, query.stride(), key.shape, key.stride()))
            self.count += 1
            self.by_token &= query.transpose(1, 2).is_contiguous()
            enabled = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
            self.may_use_cudnn.add(enabled)
        return func(*args, **kwargs)


@pytest.fixture
def engine(bundle: Bundle) -> EditEngine:
    return EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)


def test_no_plan_is_made_for_the_text_encoder_s_short_calls(engine: EditEngine) -> None:
    with Calls() as calls:
        engine._encode_prompt("remove it", [Image.new("RGB", (64, 64))])
    assert calls.count >= 4
    assert calls.may_use_cudnn == {False}


def test_an_edit_needs_two_plans_whatever_its_steps_and_blocks(engine: EditEngine) -> None:
    state = prepared(engine, spec_of(prompt="remove the rocket"))
    with Calls() as calls:
        for _ in range(2):
            engine.step(state)
    assert calls.may_use_cudnn == {True}
    assert calls.count == 2 * 2 * len(engine._pipeline.transformer.transformer_blocks)
    # With the prompt and with the negative prompt.
    assert len(calls.plans) == 2
    # cuDNN can round lengths up, and so make fewer plans, only in this layout.
    assert calls.by_token


def test_another_prompt_needs_a_plan_only_if_it_is_of_another_length(engine: EditEngine) -> None:
    lengths = set()
    calls = Calls()
    for prompt in EXAMPLES:
        state = prepared(engine, spec_of(prompt=prompt))
        assert state.negative_prompt is not None
        lengths |= {each.embeddings.shape[1] for each in (state.prompt, state.negative_prompt)}
        with calls:
            engine.step(state)
    assert 2 < len(lengths) < len(EXAMPLES) + 1
    assert len(calls.plans) == len(lengths)
