"""Owns the encoded samples that the transformer learns from, kept on disk between runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from export.demo_edits.samples import Flow, Sample, draw_sample
from export.demo_edits.training.single_frame import single_frame
from export.demo_edits.training.vae import as_values
from export.folders import replacing_file
from export.scenes.edits import Pixels

# A blank prompt; the pipeline's own negative prompt is the same.
BLANK = " "
SHARD = 20


@dataclass(frozen=True, eq=False)
class Encoded:
    """A sample as the transformer sees it, in float16."""

    pictures: Tensor
    """float16 [1 + conditions, tokens, 4 x z_dim], packed: the truth, then the conditions."""
    prompt: Tensor
    """float16 [length, dim]."""
    blank: Tensor
    """float16 [length, dim]: the same conditions without a prompt."""


@dataclass(frozen=True)
class Portion:
    """How many samples of each flow at one size."""

    size: int
    samples: int


# (size, flow) -> its samples.
Pool = dict[tuple[int, Flow], list[Encoded]]


def encoded_pool(
    pipeline: Any,
    portions: Sequence[Portion],
    flows: Sequence[Flow],
    seed: int,
    photographs: Sequence[Pixels],
    folder: Path,
    on_sample: Callable[[int], None],
) -> Pool:
    """Draw and encode samples, or read what an earlier run has encoded.

    Args:
        pipeline: its VAE and text encoder encode the samples, as they do in serving.
        portions: how many samples at which sizes.
        flows: the flows to draw.
        seed: seed of the scenes.
        photographs: RGB uint8 [height, width, 3] each; a fraction of the backgrounds is cut from
            them.
        folder: where the shards lie. It holds no shard of another VAE.
        on_sample: called with the number of samples that have just become ready.

    Returns:
        The pool: a list of samples for each size and flow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pool: Pool = {}
    for portion in portions:
        for flow in flows:
            number = list(Flow).index(flow)
            found = pool.setdefault((portion.size, flow), [])
            for first in range(0, portion.samples, SHARD):
                count = min(SHARD, portion.samples - first)
                path = folder / f"{portion.size}-{number}-{first}-{count}.pt"
                if not path.exists():
                    seeds = [[seed, 3, number, portion.size, first + at] for at in range(count)]
                    samples = [draw_sample(flow, each, portion.size, photographs) for each in seeds]
                    encoded = [encode(pipeline, sample) for sample in samples]
                    with replacing_file(path) as unfinished:
                        torch.save([vars(each) for each in encoded], unfinished)
                found += [Encoded(**each) for each in torch.load(path, weights_only=True)]
                on_sample(count)
    return pool


@torch.no_grad()
def encode(pipeline: Any, sample: Sample) -> Encoded:
    """Encode a sample as the pipeline encodes an edit's inputs, without a change of size."""
    pictures = [sample.truth, *sample.conditions.images]
    values = as_values(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    with single_frame():
        latents = pipeline.vae.encode(values[:, :, None].to(pipeline.vae.device)).latent_dist.mode()
    count, channels, _, height, width = latents.shape
    images = [Image.fromarray(pixels) for pixels in sample.conditions.images]
    return Encoded(
        pictures=pipeline._pack_latents(latents, count, channels, height, width).half().cpu(),
        prompt=pipeline.encode_prompt(sample.request.prompt, image=images)[0][0].half().cpu(),
        blank=pipeline.encode_prompt(BLANK, image=images)[0][0].half().cpu(),
    )
