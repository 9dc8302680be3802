"""Owns FastSAM's network in PyTorch, for machines without the packages that export it.

Its modules have the names of the exported network's weights: an ONNX file's weights fit.
"""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn

# Depth, width and largest number of channels.
SCALES = {
    "demo": (0.33, 0.25, 512),
    "FastSAM-s": (0.33, 0.5, 1024),
    "FastSAM-x": (1.0, 1.25, 512),
}
COEFFICIENTS = 32
# Bins of the distribution from which each side of a box is read.
BINS = 16
STRIDES = (8, 16, 32)


class Conv(nn.Module):
    """A convolution, into which the normalisation has been folded, and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Turn [n, in, height, width] into [n, out, ...]."""
        return nn.functional.silu(self.conv(maps))


class Bottleneck(nn.Module):
    """Two convolutions, with a way around them in the backbone."""

    def __init__(self, channels: int, around: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.around = around

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Keep the shape."""
        found: torch.Tensor = self.cv2(self.cv1(maps))
        return maps + found if self.around else found


class C2f(nn.Module):
    """Bottlenecks in a row, of which every output counts."""

    def __init__(self, inputs: int, outputs: int, count: int, around: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, outputs)
        self.cv2 = Conv((2 + count) * half, outputs)
        self.m = nn.ModuleList(Bottleneck(half, around) for _ in range(count))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Turn [n, in, height, width] into [n, out, ...]."""
        parts = list(self.cv1(maps).chunk(2, 1))
        for each in self.m:
            parts.append(each(parts[-1]))
        found: torch.Tensor = self.cv2(torch.cat(parts, 1))
        return found


class Sppf(nn.Module):
    """The largest values of three growing neighbourhoods."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.cv2 = Conv(2 * channels, channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Keep the shape."""
        parts = [self.cv1(maps)]
        for _ in range(3):
            parts.append(nn.functional.max_pool2d(parts[-1], 5, 1, 2))
        found: torch.Tensor = self.cv2(torch.cat(parts, 1))
        return found


class Prototypes(nn.Module):
    """The maps of which every mask is a sum."""

    def __init__(self, inputs: int, middle: int) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, middle, 3)
        self.upsample = nn.ConvTranspose2d(middle, middle, 2, 2)
        self.cv2 = Conv(middle, middle, 3)
        self.cv3 = Conv(middle, COEFFICIENTS)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Turn [n, in, height, width] into [n, 32, 2 x height, 2 x width]."""
        found: torch.Tensor = self.cv3(self.cv2(self.upsample(self.cv1(maps))))
        return found


class Head(nn.Module):
    """Boxes, scores and coefficients of every cell, and the prototypes."""

    def __init__(self, channels: tuple[int, int, int], prototypes: int) -> None:
        super().__init__()
        first = channels[0]

        def branch(inputs: int, middle: int, outputs: int) -> nn.Sequential:
            last = nn.Conv2d(middle, outputs, 1)
            return nn.Sequential(Conv(inputs, middle, 3), Conv(middle, middle, 3), last)

        def branches(middle: int, outputs: int) -> nn.ModuleList:
            return nn.ModuleList(branch(each, middle, outputs) for each in channels)

        self.cv2 = branches(max(16, first // 4, 4 * BINS), 4 * BINS)
        self.cv3 = branches(first, 1)
        self.cv4 = branches(max(first // 4, COEFFICIENTS), COEFFICIENTS)
        self.proto = Prototypes(first, prototypes)

    def forward(self, levels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn the maps of three strides into float32 [n, 37, cells], and the prototypes."""
        rows = [
            [each(level).float().flatten(2) for level, each in zip(levels, part, strict=True)]
            for part in (self.cv2, self.cv3, self.cv4)
        ]
        sides, scores, coefficients = (torch.cat(each, 2) for each in rows)
        bins = torch.arange(BINS, device=sides.device, dtype=torch.float32)
        chances = sides.reshape(len(sides), 4, BINS, -1).softmax(2)
        left, top, right, bottom = (chances * bins[:, None]).sum(2).unbind(1)
        x, y, stride = _cells(levels)
        box = torch.stack(
            [x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom], 1
        )
        predictions = torch.cat([box * stride, scores.sigmoid(), coefficients], 1)
        return predictions, self.proto(levels[0]).float()


def _cells(levels: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return the middle of every cell, in cells, and its stride, in pixels."""
    found = []
    for level, stride in zip(levels, STRIDES, strict=True):
        height, width = level.shape[2:]
        y, x = torch.meshgrid(
            *(torch.arange(side, device=level.device) + 0.5 for side in (height, width)),
            indexing="ij",
        )
        found.append(torch.stack([x.flatten(), y.flatten(), torch.full_like(x, stride).flatten()]))
    return torch.cat(found, 1).unbind(0)


class MaskNetwork(nn.Module):
    """yolov8-seg with one class, which is what FastSAM is."""

    def __init__(self, scale: str) -> None:
        """Build it with random weights.

        Args:
            scale: a key of `SCALES`.
        """
        super().__init__()
        depth, width, most = SCALES[scale]

        def channels(count: int) -> int:
            return -(-int(min(count, most) * width) // 8) * 8

        def count(times: int) -> int:
            return max(round(times * depth), 1)

        a, b, c, d, e = (channels(64 * 2**power) for power in range(5))
        self.model = nn.ModuleList(
            [
                Conv(3, a, 3, 2), Conv(a, b, 3, 2), C2f(b, b, count(3), True),
                Conv(b, c, 3, 2), C2f(c, c, count(6), True),
                Conv(c, d, 3, 2), C2f(d, d, count(6), True),
                Conv(d, e, 3, 2), C2f(e, e, count(3), True), Sppf(e),
                nn.Identity(), nn.Identity(), C2f(e + d, d, count(3)),
                nn.Identity(), nn.Identity(), C2f(d + c, c, count(3)),
                Conv(c, c, 3, 2), nn.Identity(), C2f(c + d, d, count(3)),
                Conv(d, d, 3, 2), nn.Identity(), C2f(d + e, e, count(3)),
                Head((c, d, e), channels(256)),
            ]
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find things in images [n, 3, side, side], RGB in 0..1.

        Returns:
            float32 [n, 37, cells] and [n, 32, side / 4, side / 4], as the served network's.
        """
        layers = self.model
        kept = {}
        maps = images
        for index in range(10):
            maps = layers[index](maps)
            kept[index] = maps
        for index, other in ((12, 6), (15, 4)):
            larger = nn.functional.interpolate(maps, scale_factor=2.0)
            maps = kept[index] = layers[index](torch.cat([larger, kept[other]], 1))
        for index, other in ((18, 12), (21, 9)):
            maps = torch.cat([layers[index - 2](maps), kept[other]], 1)
            maps = kept[index] = layers[index](maps)
        found: tuple[torch.Tensor, torch.Tensor] = layers[22]([kept[each] for each in (15, 18, 21)])
        return found


def load(network: MaskNetwork, path: Path) -> None:
    """Give a network the weights of an exported one of its scale."""
    weights = {
        weight.name.removesuffix(".half"): torch.from_numpy(
            numpy_helper.to_array(weight).astype("float32")
        )
        for weight in onnx.load(path).graph.initializer
    }
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
