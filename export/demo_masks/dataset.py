"""Owns the training set of the mask network: scenes on disk, and batches changed at random."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from export.fastsam.sheet import GREY
from export.folders import replacing_file
from export.scenes.masks import draw_scene

SCENE_SIZE = 256
SHARD = 500
# An object with fewer pixels in the picture that the network sees is no target.
MIN_PIXELS = 30

Pixels = npt.NDArray[np.uint8]


class ScenePool:
    """Scenes kept on disk, RGB beside label, and read by memory map."""

    def __init__(self, shards: list[Path]) -> None:
        self._shards = [np.load(shard, mmap_mode="r") for shard in shards]
        self._shard = len(self._shards[0])

    def __len__(self) -> int:
        return self._shard * len(self._shards)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        """Return a scene: uint8 [256, 256, 3] RGB, and uint8 [256, 256] labels."""
        scene = self._shards[index // self._shard][index % self._shard]
        return np.ascontiguousarray(scene[..., :3]), np.ascontiguousarray(scene[..., 3])


def scene_pool(
    folder: Path,
    count: int,
    seed: int,
    workers: int,
    on_scenes: Callable[[int], None],
    shard: int = SHARD,
) -> ScenePool:
    """Draw the scenes that are not in the folder yet.

    Args:
        folder: holds the scenes in .npy files; each appears complete or not at all.
        count: how many scenes, rounded up to whole files.
        seed: two seeds have no scene in common.
        workers: how many processes draw.
        on_scenes: called with the number of scenes that were just found or drawn.
        shard: scenes per file.

    Returns:
        The pool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = seed * 10**6
    shards = {
        start: folder / f"{seed}-{start:06d}.npy" for start in range(first, first + count, shard)
    }
    missing = [(start, shard, path) for start, path in shards.items() if not path.exists()]
    on_scenes(shard * (len(shards) - len(missing)))
    # A forked process that inherits torch's threads can hang, so the processes are spawned.
    with multiprocessing.get_context("spawn").Pool(workers) as processes:
        for _ in processes.imap_unordered(_draw_shard, missing):
            on_scenes(shard)
    return ScenePool(list(shards.values()))


def _draw_shard(job: tuple[int, int, Path]) -> None:
    start, count, path = job
    cv2.setNumThreads(1)
    scenes = np.empty((count, SCENE_SIZE, SCENE_SIZE, 4), np.uint8)
    for offset, row in enumerate(scenes):
        scene = draw_scene(start + offset, SCENE_SIZE)
        row[..., :3], row[..., 3] = scene.picture, scene.labels
    with replacing_file(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, scenes)


@dataclass(frozen=True)
class Batch:
    """What one training step sees, in the form that ultralytics' loss takes."""

    images: torch.Tensor
    """float32 [n, 3, size, size], RGB in 0..1."""
    targets: dict[str, torch.Tensor]
    """`batch_idx` float32 [objects]: which image. `cls` float32 [objects, 1]: always 0. `bboxes`
    float32 [objects, 4]: centre x, centre y, width, height in 0..1. `masks` uint8
    [n, size / stride, size / stride]: number of the object in its image, 0 for none."""


def draw_batch(
    pool: ScenePool, rng: np.random.Generator, count: int, size: int, mask_stride: int
) -> Batch:
    """Take scenes at random and change each: mirror, turn, zoom, recolour.

    Args:
        pool: the scenes.
        rng: the source of randomness.
        count: images in the batch.
        size: side of the images, in pixels.
        mask_stride: factor by which the masks are smaller than the images.

    Returns:
        The batch.
    """
    images, masks, owners, boxes = [], [], [], []
    for owner in range(count):
        picture, labels = _changed(rng, *pool[int(rng.integers(len(pool)))], size)
        objects, found = _objects(labels)
        images.append(torch.from_numpy(picture))
        coarse = objects[mask_stride // 2 :: mask_stride, mask_stride // 2 :: mask_stride]
        masks.append(torch.from_numpy(coarse.copy()))
        boxes += found
        owners += [owner] * len(found)
    return Batch(
        images=torch.stack(images).permute(0, 3, 1, 2).float() / 255,
        targets={
            "batch_idx": torch.tensor(owners, dtype=torch.float32),
            "cls": torch.zeros(len(owners), 1),
            "bboxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / size,
            "masks": torch.stack(masks),
        },
    )


def _changed(
    rng: np.random.Generator, picture: Pixels, labels: Pixels, size: int
) -> tuple[Pixels, Pixels]:
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    picture, labels = np.rot90(picture, turns), np.rot90(labels, turns)
    if mirrored:
        picture, labels = picture[:, ::-1], labels[:, ::-1]
    if rng.random() < 0.4:
        picture = picture[..., rng.permutation(3)]
    if rng.random() < 0.1:
        picture = ~picture
    picture, labels = np.ascontiguousarray(picture), np.ascontiguousarray(labels)
    if rng.random() < 0.5:
        into = _zoom(rng, len(labels), size)
        fill = [GREY] * 3 if rng.random() < 0.7 else rng.integers(256, size=3).tolist()
        return (
            cv2.warpAffine(picture, into, (size, size), borderValue=fill),
            cv2.warpAffine(labels, into, (size, size), flags=cv2.INTER_NEAREST),
        )
    method = cv2.INTER_AREA if size < len(labels) else cv2.INTER_LINEAR
    return (
        cv2.resize(picture, (size, size), interpolation=method),
        cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT),
    )


def _zoom(rng: np.random.Generator, from_size: int, to_size: int) -> npt.NDArray[np.float32]:
    """Draw an affine map that zooms, stretches and shifts."""
    scale = to_size / from_size * np.exp(rng.uniform(np.log(0.65), np.log(1.6)))
    scales = scale * np.exp(rng.uniform(-0.2, 0.2) * np.array([1, -1]))
    # The shift reaches from flush with one edge to flush with the other.
    shift = rng.uniform(0, 1, 2) * (to_size - scales * from_size)
    return np.array([[scales[0], 0, shift[0]], [0, scales[1], shift[1]]], np.float32)


def _objects(labels: Pixels) -> tuple[Pixels, list[tuple[float, float, float, float]]]:
    """Remove the tiny objects and renumber the rest; return these and their boxes in pixels."""
    objects, boxes = np.zeros_like(labels), []
    for label in range(1, int(labels.max()) + 1):
        mask = (labels == label).astype(np.uint8)
        if cv2.countNonZero(mask) >= MIN_PIXELS:
            left, top, width, height = cv2.boundingRect(mask)
            boxes.append((left + width / 2, top + height / 2, float(width), float(height)))
            objects += np.uint8(len(boxes)) * mask
    return objects, boxes
