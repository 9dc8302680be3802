"""Owns the denoising engine: one edit in steps, over the components of a diffusers pipeline.

The engine computes what QwenImageEditPlusPipeline.__call__ computes. It returns to its caller
after every step, so that the caller can end the edit there or take turns between several edits.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import (
    CONDITION_IMAGE_SIZE,
    calculate_dimensions,
    calculate_shift,
)
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from image_edit.conditions import Pixels, Size
from image_edit.engine.bundle import Bundle
from image_edit.engine.device import coded_device_errors, give_back_memory
from image_edit.spec import MIN_SIDE, EditSpec
from model_kit.errors import Code, CodedError, invalid

LIGHTNING_SHIFT = 3.0
# PyTorch's generator on the CPU ignores all higher bits of a seed.
TORCH_SEED_BITS = 32
# Attention kernels that the text encoder may use: all but cuDNN's.
TEXT_ATTENTION = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt, with the condition images, as the transformer reads it."""

    embeddings: torch.Tensor
    """[1, tokens, dim]"""
    mask: torch.Tensor | None
    """[1, tokens]; None if every token counts."""


@dataclass(eq=False)
class EditState:
    """One edit between two steps. No other edit uses any part of it."""

    adapters: tuple[str, ...]
    """Names in the pipeline."""
    prompt: Prompt
    negative_prompt: Prompt | None
    """None: no classifier-free guidance."""
    true_cfg_scale: float
    guidance: torch.Tensor | None
    """[1], for guidance-distilled transformers."""
    latents: torch.Tensor
    """[1, tokens, 4 x z_dim], packed and normalised."""
    image_latents: torch.Tensor
    """Of all condition images, packed as `latents` are."""
    image_shapes: list[list[tuple[int, int, int]]]
    """Frames, rows and columns of tokens: the output's, then those of each condition image."""
    scheduler: FlowMatchEulerDiscreteScheduler
    size: Size
    step: int = 0
    """Steps finished."""
    velocity: torch.Tensor | None = None
    """What the last step predicted, packed as `latents` are."""


class EditEngine:
    """Runs any number of edits in turn on a bundle's pipeline, called by one thread at a time."""

    def __init__(self, bundle: Bundle, condition_area: int | None, scheduler_shift: float) -> None:
        """Take over a loaded bundle.

        Args:
            bundle: nothing else may use its pipeline.
            condition_area: pixels of each condition image as the VAE sees it; None: as many as
                the output has. diffusers' own constant is 1024².
            scheduler_shift: of the static schedule, 0.001..10.
        """
        self._pipeline = bundle.pipeline
        self._preview = bundle.preview
        self._condition_area = condition_area
        self._scheduler_shift = scheduler_shift
        self._device: torch.device = bundle.pipeline.device
        self._channels: int = bundle.pipeline.transformer.config.in_channels // 4
        self._adapters = bundle.adapters
        self._active_adapters: tuple[str, ...] | None = None
        self._stepped: EditState | None = None
        self.adapters = tuple(bundle.adapters)
        self.distilled: bool = bundle.pipeline.transformer.config.guidance_embeds

    @torch.inference_mode()
    def prepare(self, spec: EditSpec) -> Generator[None, None, EditState]:
        """Encode prompts and condition images, and draw the noise.

        Yields:
            After each prompt and each image, so that the caller can end the edit there.

        Returns:
            The state before the first step.

        Raises:
            CodedError: UNIMPLEMENTED if the bundle lacks the task's adapter,
                INVALID_ARGUMENT if a prompt is too long or has one of the model's own tokens,
                RESOURCE_EXHAUSTED.
            DeviceLostError: the device failed.
        """
        if spec.task_type not in self.adapters:
            raise CodedError(Code.UNIMPLEMENTED, f"no adapter for {spec.task_type} is installed")
        # The prompt contains the angle and the background: conditioning has added them.
        self._check_text("PROMPT", spec.prompt, ", nor in ANGLE or BACKGROUND_PRESET")
        self._check_text("NEGATIVE_PROMPT", spec.negative_prompt)
        with coded_device_errors(self._device):
            width, height = spec.size
            area = self._condition_area or width * height
            text_area = min(CONDITION_IMAGE_SIZE, area)
            images = [Image.fromarray(pixels) for pixels in spec.images]
            text_images = [self._resized(image, text_area) for image in images]
            prompt = self._encode_prompt(spec.prompt, text_images)
            yield
            negative_prompt = None
            if spec.true_cfg_scale > 1:
                negative_prompt = self._encode_prompt(spec.negative_prompt, text_images)
                yield
            noise = self._draw_noise(spec, prompt.embeddings.dtype)
            image_latents = []
            for image in images:
                image_latents.append(self._encode_image(image, area, noise))
                yield
            shapes = [spec.size, *(_dimensions(area, image.size) for image in images)]
            token_side = 2 * self._pipeline.vae_scale_factor
            return EditState(
                adapters=self._adapters[spec.task_type],
                prompt=prompt,
                negative_prompt=negative_prompt,
                true_cfg_scale=spec.true_cfg_scale,
                guidance=(
                    torch.full([1], spec.guidance_scale, device=self._device, dtype=torch.float32)
                    if self.distilled
                    else None
                ),
                latents=noise,
                image_latents=torch.cat(image_latents, dim=1),
                image_shapes=[[(1, h // token_side, w // token_side) for w, h in shapes]],
                scheduler=self._schedule(spec, noise.shape[1]),
                size=spec.size,
            )

    def step_pixels(self, spec: EditSpec) -> int:
        """Return the pixels that the transformer reads in one step; its time grows with them.

        Of the picture and its conditions, twice where classifier-free guidance is on.
        """
        width, height = spec.size
        pixels = width * height
        read = pixels + len(spec.images) * (self._condition_area or pixels)
        return 2 * read if spec.true_cfg_scale > 1 else read

    @torch.inference_mode()
    def step(self, state: EditState) -> None:
        """Take one denoising step and wait until the device has finished it.

        Raises:
            CodedError: RESOURCE_EXHAUSTED.
            DeviceLostError: the device failed.
        """
        with coded_device_errors(self._device):
            self._activate(state.adapters)
            self._take_turn(state)
            timestep = state.scheduler.timesteps[state.step]
            velocity = self._predict_guided(state, timestep)
            state.latents = state.scheduler.step(
                velocity, timestep, state.latents, return_dict=False
            )[0]
            state.velocity = velocity
            state.step += 1
            if self._device.type == "cuda":
                # Otherwise the engine would report steps that still wait in the device's queue,
                # and a cancel would come too late for them.
                torch.cuda.synchronize(self._device)

    @torch.inference_mode()
    def preview(self, state: EditState) -> Pixels:
        """Draw the picture that the last step predicts.

        Returns:
            RGB uint8 [height, width, 3], an eighth of the output's size.

        Raises:
            CodedError: RESOURCE_EXHAUSTED.
            DeviceLostError: the device failed.
        """
        with coded_device_errors(self._device):
            latents = state.latents
            if state.velocity is not None:
                # A flow is a straight line, so the remaining noise level leads to its end.
                latents = latents - state.scheduler.sigmas[state.step] * state.velocity
            return self._preview.render(self._unpack(latents, state.size)[0, :, 0])

    @torch.inference_mode()
    def decode(self, state: EditState) -> Pixels:
        """Decode the latents.

        Returns:
            RGB uint8 [height, width, 3].

        Raises:
            CodedError: INTERNAL if the picture is not finite, RESOURCE_EXHAUSTED.
            DeviceLostError: the device failed.
        """
        with coded_device_errors(self._device):
            self._take_turn(None)  # the VAE needs the memory of the step cache
            vae = self._pipeline.vae
            latents = self._unpack(state.latents, state.size).to(vae.dtype)
            channels = (1, -1, 1, 1, 1)
            mean = torch.tensor(vae.config.latents_mean).view(channels).to(latents)
            inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(channels).to(latents)
            image = vae.decode(latents / inverse_std + mean, return_dict=False)[0][:, :, 0]
            if not (torch.isfinite(latents).all() and torch.isfinite(image).all()):
                raise CodedError(Code.INTERNAL, "the generated picture is not finite")
            return np.asarray(self._pipeline.image_processor.postprocess(image)[0])

    def forget(self) -> None:
        """Let go of what belongs to the edit that had the last step."""
        self._take_turn(None)

    def give_back_memory(self) -> None:
        """Free the memory that torch keeps on the device for later tensors.

        TensorRT needs it, and CUDA when it loads a kernel: both allocate beside torch.
        """
        give_back_memory(self._device)

    def _resized(self, image: Image.Image, area: int) -> Image.Image:
        width, height = _dimensions(area, image.size)
        resized: Image.Image = self._pipeline.image_processor.resize(image, height, width)
        return resized

    def _encode_prompt(self, text: str, images: list[Image.Image]) -> Prompt:
        # On Hopper torch would choose cuDNN, which builds a plan for every new prompt length and
        # keeps them all. These calls are too short to be worth it.
        with sdpa_kernel(TEXT_ATTENTION):
            return Prompt(*self._pipeline.encode_prompt(text, image=images, device=self._device))

    def _draw_noise(self, spec: EditSpec, dtype: torch.dtype) -> torch.Tensor:
        """Draw [1, tokens, 4 x z_dim] from the edit's own seed."""
        # On the CPU, so that the same seed gives the same noise on every device.
        width, height = spec.size
        generator = drawn = None
        if spec.seed < 2**TORCH_SEED_BITS:
            generator = torch.Generator("cpu").manual_seed(spec.seed)
        else:
            drawn = self._draw_packed(spec)
        noise: torch.Tensor = self._pipeline.prepare_latents(
            None, 1, self._channels, height, width, dtype, self._device, generator, drawn
        )[0]
        return noise

    def _draw_packed(self, spec: EditSpec) -> torch.Tensor:
        """Draw what `_draw_noise` draws, float32, from a generator that uses all bits of a seed."""
        rows, columns = (side // self._pipeline.vae_scale_factor for side in reversed(spec.size))
        random = np.random.Generator(np.random.PCG64(spec.seed))
        shape = (1, 1, self._channels, rows, columns)
        packed: torch.Tensor = self._pipeline._pack_latents(
            torch.from_numpy(random.standard_normal(shape, np.float32)),
            *(1, self._channels, rows, columns),
        )
        return packed

    def _encode_image(self, image: Image.Image, area: int, noise: torch.Tensor) -> torch.Tensor:
        """Return [1, tokens, 4 x z_dim] of the dtype and on the device of `noise`."""
        width, height = _dimensions(area, image.size)
        pixels = self._pipeline.image_processor.preprocess(image, height, width).unsqueeze(2)
        # The pipeline's own method. It draws no noise, because it is given some.
        latents: torch.Tensor = self._pipeline.prepare_latents(
            pixels, 1, self._channels, height, width, noise.dtype, self._device, None, noise
        )[1]
        return latents

    def _schedule(self, spec: EditSpec, tokens: int) -> FlowMatchEulerDiscreteScheduler:
        """Make a scheduler for this edit alone, with its timesteps set."""
        config = self._pipeline.scheduler.config
        changes: dict[str, Any] = {}
        if spec.static_schedule:
            changes |= {"use_dynamic_shifting": False, "shift": self._scheduler_shift}
        few_steps = len(self._adapters[spec.task_type]) > 1
        if few_steps:
            # Lightning adapters were distilled for this: their model card sets base_shift and
            # max_shift to ln 3 for every size, and does not stretch the schedule to a terminal.
            changes |= {"use_dynamic_shifting": False, "shift": LIGHTNING_SHIFT}
        if few_steps or spec.num_inference_steps == 1:
            # Stretching a schedule of one sigma to its terminal would divide 0 by 0.
            changes["shift_terminal"] = None
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config, **changes)
        steps = spec.num_inference_steps
        scheduler.set_timesteps(
            sigmas=np.linspace(1.0, 1 / steps, steps),
            device=self._device,
            mu=calculate_shift(
                tokens,
                config.get("base_image_seq_len", 256),
                config.get("max_image_seq_len", 4096),
                config.get("base_shift", 0.5),
                config.get("max_shift", 1.15),
            ),
        )
        scheduler.set_begin_index(0)
        return scheduler

    def _predict_guided(self, state: EditState, timestep: torch.Tensor) -> torch.Tensor:
        """Predict with classifier-free guidance, rescaled to the conditional prediction's norm."""
        conditional = self._predict(state, timestep, state.prompt, "cond")
        if state.negative_prompt is None:
            return conditional
        negative = self._predict(state, timestep, state.negative_prompt, "uncond")
        combined = negative + state.true_cfg_scale * (conditional - negative)
        target = torch.norm(conditional, dim=-1, keepdim=True)
        norm = torch.norm(combined, dim=-1, keepdim=True)
        # A prediction of 0 has no direction to rescale and stays 0.
        return combined * torch.where(norm == 0, norm, target / norm)

    def _predict(
        self, state: EditState, timestep: torch.Tensor, prompt: Prompt, context: str
    ) -> torch.Tensor:
        transformer = self._pipeline.transformer
        with transformer.cache_context(context):
            prediction: torch.Tensor = transformer(
                hidden_states=torch.cat([state.latents, state.image_latents], dim=1),
                timestep=timestep.expand(1).to(state.latents.dtype) / 1000,
                guidance=state.guidance,
                encoder_hidden_states_mask=prompt.mask,
                encoder_hidden_states=prompt.embeddings,
                img_shapes=state.image_shapes,
                attention_kwargs={},
                return_dict=False,
            )[0]
        return prediction[:, : state.latents.shape[1]]

    def _activate(self, adapters: tuple[str, ...]) -> None:
        if adapters != self._active_adapters:
            self._active_adapters = None  # unknown if the switch fails half-way
            self._pipeline.set_adapters(list(adapters))
            self._active_adapters = adapters

    def _take_turn(self, state: EditState | None) -> None:
        """Empty the step cache, if there is one, when it belongs to another edit.

        Args:
            state: of the edit whose turn it is; None: no edit's.
        """
        if state is not self._stepped:
            self._stepped = state
            if self._pipeline.transformer.is_cache_enabled:
                self._pipeline.transformer._reset_stateful_cache()

    def _unpack(self, latents: torch.Tensor, size: Size) -> torch.Tensor:
        """Turn [1, tokens, 4 x z_dim] into [1, z_dim, 1, height / 8, width / 8]."""
        width, height = size
        unpacked: torch.Tensor = self._pipeline._unpack_latents(
            latents, height, width, self._pipeline.vae_scale_factor
        )
        return unpacked

    def _check_text(self, field: str, text: str, others: str = "") -> None:
        """Refuse a text that is too long, or that has one of the model's own tokens.

        Raises:
            CodedError: INVALID_ARGUMENT, naming the field and the token.
        """
        tokenizer = self._pipeline.tokenizer
        ids = tokenizer(text).input_ids
        # Such as <|im_end|>, which would end the user's turn, or <|image_pad|>, which would stand
        # for a picture that does not exist.
        own = tokenizer.added_tokens_decoder
        if used := [own[id_].content for id_ in ids if id_ in own]:
            raise invalid(field, f"the model's own token {used[0]} may not stand here{others}")
        limit = self._pipeline.tokenizer_max_length
        if len(ids) > limit:
            raise invalid(field, f"{len(ids)} tokens long, at most {limit}")


def _dimensions(area: int, size: Size) -> Size:
    """Return width and height, multiples of 32, of about `area` pixels in the aspect of `size`."""
    width, height = calculate_dimensions(area, size[0] / size[1])
    return max(MIN_SIDE, width), max(MIN_SIDE, height)
