"""The engine against diffusers' own pipeline, on the demo bundle."""

from typing import Any

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as reference
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch.overrides import TorchFunctionMode

from image_edit.engine.bundle import Bundle
from image_edit.engine.engine import EditEngine, EditState
from image_edit.errors import DeviceLostError
from image_edit.spec import EditSpec
from model_kit.errors import Code, CodedError
from tests.models.image_edit.edits import picture

SHIFT = 3.0
# Of pixels and latents; the two do the same arithmetic in the same order.
ROUNDING = 1e-5


@pytest.fixture
def engine(bundle: Bundle) -> EditEngine:
    return EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)


def spec_of(**changes: Any) -> EditSpec:
    plain: dict[str, Any] = {
        "task_type": "removal",
        "prompt": "remove the object",
        "negative_prompt": " ",
        "images": np.stack([picture(seed=seed) for seed in range(2)]),
        "size": (64, 64),
        "num_inference_steps": 2,
        "true_cfg_scale": 4.0,
        "guidance_scale": 4.0,
        "seed": 7,
        "static_schedule": False,
    }
    return EditSpec(**plain | changes)


def prepared(engine: EditEngine, spec: EditSpec) -> EditState:
    preparing = engine.prepare(spec)
    while True:
        try:
            next(preparing)
        except StopIteration as end:
            state: EditState = end.value
            return state


def denoised(engine: EditEngine, spec: EditSpec) -> EditState:
    state = prepared(engine, spec)
    for _ in range(spec.num_inference_steps):
        engine.step(state)
    return state


def call_of_diffusers(bundle: Bundle, spec: EditSpec, output_type: str) -> Any:
    pipeline = bundle.pipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.set_adapters(spec.task_type)
    width, height = spec.size
    return pipeline(
        [Image.fromarray(pixels) for pixels in spec.images],
        spec.prompt,
        negative_prompt=spec.negative_prompt,
        true_cfg_scale=spec.true_cfg_scale,
        width=width,
        height=height,
        num_inference_steps=spec.num_inference_steps,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        output_type=output_type,
    ).images


EDITS: dict[str, dict[str, Any]] = {
    "guided": {},
    "unguided": {"true_cfg_scale": 1.0},
    "negative prompt": {"true_cfg_scale": 2.5, "negative_prompt": "blurry, dark"},
    "three conditions": {"images": np.stack([picture(seed=seed) for seed in range(3)])},
    "another aspect": {"size": (96, 48), "images": np.stack([picture(90, 50)])},
    "another adapter": {"task_type": "white-balance", "num_inference_steps": 3},
}


@pytest.mark.parametrize("name", EDITS)
def test_the_picture_is_that_of_diffusers(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = spec_of(**EDITS[name])
    area = spec.size[0] * spec.size[1]
    monkeypatch.setattr(reference, "VAE_IMAGE_SIZE", area)
    monkeypatch.setattr(reference, "CONDITION_IMAGE_SIZE", area)
    state = denoised(engine, spec)
    assert (state.latents - call_of_diffusers(bundle, spec, "latent")).abs().max() < ROUNDING
    expected = np.asarray(call_of_diffusers(bundle, spec, "pil")[0], np.int16)
    assert np.abs(engine.decode(state) - expected).max() <= 1


def test_a_static_schedule_is_that_of_diffusers_and_another_trajectory(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "VAE_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(reference, "CONDITION_IMAGE_SIZE", 64 * 64)
    spec = spec_of(static_schedule=True, num_inference_steps=3)
    static = denoised(engine, spec).latents
    dynamic = denoised(engine, spec_of(num_inference_steps=3)).latents
    assert (static - dynamic).abs().max() > 0.01

    scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        bundle.pipeline.scheduler.config, use_dynamic_shifting=False, shift=SHIFT
    )
    monkeypatch.setattr(bundle.pipeline, "scheduler", scheduler)
    assert (static - call_of_diffusers(bundle, spec, "latent")).abs().max() < ROUNDING


def test_a_single_step_is_finite(engine: EditEngine) -> None:
    for static in (False, True):
        state = denoised(engine, spec_of(num_inference_steps=1, static_schedule=static))
        assert state.scheduler.sigmas.tolist() == [1.0, 0.0]
        assert engine.decode(state).std() > 1


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(engine: EditEngine) -> None:
    first = engine.decode(denoised(engine, spec_of()))
    assert (engine.decode(denoised(engine, spec_of())) == first).all()
    assert (engine.decode(denoised(engine, spec_of(seed=8))) != first).any()


def test_adapters_switch_back_and_forth(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches: list[list[str]] = []
    set_adapters = bundle.pipeline.set_adapters

    def count(names: list[str]) -> None:
        switches.append(names)
        set_adapters(names)

    monkeypatch.setattr(bundle.pipeline, "set_adapters", count)
    tasks = ["removal", "removal", "insertion", "removal"]
    latents = [denoised(engine, spec_of(task_type=task)).latents for task in tasks]
    assert switches == [["removal"], ["insertion"], ["removal"]]
    assert latents[0].equal(latents[1])
    assert not latents[0].equal(latents[2])
    assert latents[0].equal(latents[3])


def test_edits_can_take_turns_without_leaking_into_each_other(engine: EditEngine) -> None:
    specs = [
        spec_of(num_inference_steps=3),
        spec_of(num_inference_steps=3, task_type="insertion", seed=9, true_cfg_scale=1.0),
        spec_of(num_inference_steps=3, static_schedule=True, size=(96, 48)),
    ]
    alone = [denoised(engine, spec).latents for spec in specs]
    states = [prepared(engine, spec) for spec in specs]
    for _ in range(3):
        for state in states:
            engine.step(state)
    for state, expected in zip(states, alone, strict=True):
        assert state.latents.equal(expected)


def test_each_prompt_and_each_image_is_a_unit_of_work(engine: EditEngine) -> None:
    assert sum(1 for _ in engine.prepare(spec_of())) == 4
    assert sum(1 for _ in engine.prepare(spec_of(true_cfg_scale=1.0))) == 3


class Plans(TorchFunctionMode):
    """Records the shapes of attention for which cuDNN, where there is one, would build a plan."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        attention = func is torch.nn.functional.scaled_dot_product_attention
        if attention and torch._C._get_cudnn_sdp_enabled():
            self.shapes.append(tuple(args[0].shape if args else kwargs["query"].shape))
        return func(*args, **(kwargs or {}))


def test_a_new_prompt_costs_no_plan_in_the_text_encoder_and_one_in_the_transformer(
    engine: EditEngine,
) -> None:
    with Plans() as plans:
        state = prepared(engine, spec_of(prompt="remove it", negative_prompt="blurry and dark"))
    vae = [shape for shape in plans.shapes if shape[1] == 1]
    assert plans.shapes == vae  # one head
    with Plans() as plans:
        engine.step(state)
        engine.step(state)
    # Guided: the two prompts differ in length.
    assert len(set(plans.shapes)) == 2
    assert len(plans.shapes) > 4


class Sizes:
    """Records the (width, height) at which condition images are encoded."""

    def __init__(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text: set[tuple[int, int]] = set()
        self.vae: set[tuple[int, int]] = set()
        self._encode_prompt = bundle.pipeline.encode_prompt
        self._preprocess = bundle.pipeline.image_processor.preprocess
        monkeypatch.setattr(bundle.pipeline, "encode_prompt", self.encode_prompt)
        monkeypatch.setattr(bundle.pipeline.image_processor, "preprocess", self.preprocess)

    def encode_prompt(self, prompt: str, image: list[Image.Image], device: torch.device) -> Any:
        self.text |= {each.size for each in image}
        return self._encode_prompt(prompt, image=image, device=device)

    def preprocess(self, image: Image.Image, height: int, width: int) -> Any:
        self.vae.add((width, height))
        return self._preprocess(image, height, width)


@pytest.mark.parametrize(
    ("condition_area", "condition", "vae", "text"),
    [
        (None, (64, 64), (64, 64), (64, 64)),
        (128 * 128, (64, 64), (128, 128), (128, 128)),
        (128 * 128, (80, 40), (192, 96), (192, 96)),
        (416 * 416, (64, 64), (416, 416), (384, 384)),
        (64 * 64, (1000, 10), (640, 32), (640, 32)),
    ],
)
def test_the_area_of_condition_images(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    condition_area: int | None,
    condition: tuple[int, int],
    vae: tuple[int, int],
    text: tuple[int, int],
) -> None:
    sizes = Sizes(bundle, monkeypatch)
    engine = EditEngine(bundle, condition_area, SHIFT)
    spec = spec_of(images=np.stack([picture(*condition)]), num_inference_steps=1)
    assert engine.decode(denoised(engine, spec)).shape == (64, 64, 3)
    assert sizes.vae == {vae}
    assert sizes.text == {text}


class Predictions:
    """Stands in for the transformer's forward: answers from a list, records the calls."""

    def __init__(self, answers: list[float]) -> None:
        self.answers = answers
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **call: Any) -> tuple[torch.Tensor]:
        self.calls.append(call)
        answer = self.answers[len(self.calls) - 1]
        return (torch.full_like(call["hidden_states"], answer),)


def test_guidance_keeps_the_norm_of_the_conditional_prediction(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = prepared(engine, spec_of(true_cfg_scale=3.0))
    before, sigmas = state.latents, state.scheduler.sigmas
    monkeypatch.setattr(bundle.pipeline.transformer, "forward", Predictions([0.5, 0.25]))
    engine.step(state)
    # 0.25 + 3 x (0.5 - 0.25) = 1.0, which is scaled back to the norm of 0.5.
    assert torch.allclose(state.latents, before + (sigmas[1] - sigmas[0]) * 0.5, atol=1e-6)


@pytest.mark.parametrize("answers", [[0.0, 0.0], [0.5, 1.0]])
def test_a_guided_prediction_of_nothing_moves_nothing(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch, answers: list[float]
) -> None:
    # 1.0 + 2 x (0.5 - 1.0) = 0
    state = prepared(engine, spec_of(true_cfg_scale=2.0))
    before = state.latents
    monkeypatch.setattr(bundle.pipeline.transformer, "forward", Predictions(answers))
    engine.step(state)
    assert state.latents.equal(before)


def test_caches_can_distinguish_the_two_predictions(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[str] = []
    cache_context = bundle.pipeline.transformer.cache_context

    def record(name: str) -> Any:
        contexts.append(name)
        return cache_context(name)

    monkeypatch.setattr(bundle.pipeline.transformer, "cache_context", record)
    engine.step(prepared(engine, spec_of()))
    engine.step(prepared(engine, spec_of(true_cfg_scale=1.0)))
    assert contexts == ["cond", "uncond", "cond"]


def test_only_a_distilled_transformer_is_given_the_guidance_scale(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = Predictions([0.5, 0.5, 0.5])
    monkeypatch.setattr(bundle.pipeline.transformer, "forward", predictions)
    spec = spec_of(true_cfg_scale=1.0, guidance_scale=6.0)
    engine.step(prepared(engine, spec))
    engine.distilled = True
    engine.step(prepared(engine, spec))
    assert predictions.calls[0]["guidance"] is None
    assert predictions.calls[1]["guidance"].tolist() == [6.0]


def test_what_a_step_reads_grows_with_conditions_and_guidance(engine: EditEngine) -> None:
    one, three = np.zeros((1, 64, 96, 3), np.uint8), np.zeros((3, 64, 96, 3), np.uint8)
    plain = {"size": (96, 64), "true_cfg_scale": 1.0}
    assert engine.step_pixels(spec_of(images=one, **plain)) == 2 * 96 * 64
    assert engine.step_pixels(spec_of(images=three, **plain)) == 4 * 96 * 64
    guided = spec_of(images=three, size=(96, 64), true_cfg_scale=4.0)
    assert engine.step_pixels(guided) == 8 * 96 * 64


def test_a_task_without_an_adapter_is_unimplemented(engine: EditEngine) -> None:
    with pytest.raises(CodedError, match="outpainting") as caught:
        prepared(engine, spec_of(task_type="outpainting"))
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_longer_than_the_text_encoder_reads(engine: EditEngine, field: str) -> None:
    with pytest.raises(CodedError, match=f"{field.upper()}: .* tokens") as caught:
        prepared(engine, spec_of(**{field: "§ " * 1024}))
    assert caught.value.code is Code.INVALID_ARGUMENT


def own_tokens(bundle: Bundle) -> list[str]:
    return [token.content for token in bundle.pipeline.tokenizer.added_tokens_decoder.values()]


# google-deepmind/gemma#770, huggingface/transformers#26468: special tokens in a prompt
@pytest.mark.parametrize("text", ["{}", "remove{}it", "a | {}", "{}{}"])
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_token_of_the_model_s_own_is_refused_by_name(
    bundle: Bundle, engine: EditEngine, field: str, text: str
) -> None:
    tokens = own_tokens(bundle)
    assert {"<|endoftext|>", "<|im_end|>", "<|image_pad|>"} <= set(tokens)
    for token in tokens:
        with pytest.raises(CodedError) as caught:
            prepared(engine, spec_of(**{field: text.replace("{}", token)}))
        sentence = f"{field.upper()}: the model's own token {token} may not stand here"
        assert str(caught.value).startswith(f"[INVALID_ARGUMENT] {sentence}")
        assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("text", ["<|im_end", "< |image_pad| >", "a <b> | c", "<|no_such|>"])
def test_what_only_looks_like_a_token_is_text(engine: EditEngine, text: str) -> None:
    prepared(engine, spec_of(prompt=text, negative_prompt=text))


def test_every_seed_draws_its_own_noise(engine: EditEngine) -> None:
    # vllm-project/vllm-omni#1248, lllyasviel/Fooocus#44: seeds that mean the same
    seeds = [0, 1, 7, 2**32 - 1, 2**32, 2**32 + 7, 2**53, 2**53 + 1, 2**62, 2**63 - 1]
    noises = [prepared(engine, spec_of(seed=seed)).latents for seed in seeds]
    for index, noise in enumerate(noises):
        assert all(not noise.equal(other) for other in noises[:index]), seeds[index]
        assert abs(float(noise.mean())) < 0.1
        assert float(noise.std()) == pytest.approx(1, abs=0.1)
        assert (noise.shape, noise.dtype) == (noises[0].shape, noises[0].dtype)
    again = prepared(engine, spec_of(seed=2**32, size=(64, 64))).latents
    assert again.equal(noises[4])


def test_a_large_seed_s_noise_has_every_size(engine: EditEngine) -> None:
    spec = spec_of(seed=2**40, size=(96, 48), num_inference_steps=1)
    state = denoised(engine, spec)
    assert state.latents.shape == denoised(engine, spec_of(size=(96, 48))).latents.shape
    assert engine.decode(state).shape == (48, 96, 3)


def out_of_device_memory(**_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def out_of_host_memory(**_: Any) -> None:
    torch.empty(2**60)


def out_of_driver_memory(**_: Any) -> None:
    raise torch.AcceleratorError("CUDA error: out of memory")


def out_of_library_memory(**_: Any) -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def out_of_convolution_memory(**_: Any) -> None:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")


@pytest.mark.parametrize(
    "forward",
    [
        out_of_device_memory,
        out_of_driver_memory,
        out_of_library_memory,
        out_of_convolution_memory,
        out_of_host_memory,
    ],
)
def test_out_of_memory_is_reported_and_survived(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch, forward: Any
) -> None:
    expected = denoised(engine, spec_of()).latents
    state = prepared(engine, spec_of(task_type="insertion"))
    with monkeypatch.context() as patch:
        patch.setattr(bundle.pipeline.transformer, "forward", forward)
        with pytest.raises(CodedError, match="out of memory") as caught:
            engine.step(state)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert denoised(engine, spec_of()).latents.equal(expected)


def test_a_preview_may_run_out_of_memory_too(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = prepared(engine, spec_of())
    monkeypatch.setattr(bundle.pipeline, "_unpack_latents", lambda *_: torch.empty(2**60))
    with pytest.raises(CodedError, match="out of memory") as caught:
        engine.preview(state)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "text",
    [
        "an illegal memory access was encountered",
        "uncorrectable ECC error encountered",
        "device-side assert triggered",
        "unspecified launch failure",
    ],
)
def test_a_fault_of_the_device_is_one_that_no_edit_survives(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def fail(**_: Any) -> None:
        raise torch.AcceleratorError(f"CUDA error: {text}")

    state = prepared(engine, spec_of())
    monkeypatch.setattr(bundle.pipeline.transformer, "forward", fail)
    with pytest.raises(DeviceLostError, match="the server restarts"):
        engine.step(state)


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        torch.AcceleratorError("CUDA error: invalid configuration argument"),
    ],
)
def test_an_error_is_a_fault_where_the_device_answers_no_more(
    bundle: Bundle,
    engine: EditEngine,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    lost: bool,
) -> None:
    def fail(**_: Any) -> None:
        raise error

    def synchronize(device: torch.device) -> None:
        assert device.index == 1
        if lost:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    state = prepared(engine, spec_of())
    monkeypatch.setattr(bundle.pipeline.transformer, "forward", fail)
    monkeypatch.setattr(engine, "_device", torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with pytest.raises(DeviceLostError if lost else type(error)) as caught:
        engine.step(state)
    assert isinstance(caught.value, DeviceLostError) == lost


def test_any_other_error_stays_what_it_is(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    state = prepared(engine, spec_of())
    monkeypatch.setattr(bundle.pipeline.transformer, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        engine.step(state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_is_an_error(engine: EditEngine, value: float) -> None:
    state = prepared(engine, spec_of())
    state.latents = torch.full_like(state.latents, value)
    with pytest.raises(CodedError, match="not finite") as caught:
        engine.decode(state)
    assert caught.value.code is Code.INTERNAL


def test_a_preview_is_drawn_from_where_the_step_leads(
    bundle: Bundle, engine: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = prepared(engine, spec_of(size=(96, 48), true_cfg_scale=1.0))
    noise = state.latents
    monkeypatch.setattr(bundle.pipeline.transformer, "forward", Predictions([0.5, 0.5]))
    engine.step(state)
    early = engine.preview(state)
    assert early.shape == (6, 12, 3)
    # A constant velocity leads to noise - velocity, from the first step on.
    engine.step(state)
    assert torch.allclose(state.latents, noise - 0.5, atol=1e-5)
    assert (engine.preview(state) == early).all()
