"""Scenes are kept on disk, and batches say where every object is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.demo_masks import dataset as mask_dataset
from export.demo_masks.dataset import ScenePool, draw_batch, scene_pool
from export.fastsam.sheet import GREY
from export.scenes.masks import draw_scene


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ScenePool:
    folder = tmp_path_factory.mktemp("scenes")
    counted: list[int] = []
    pool = scene_pool(folder, 24, seed=7, workers=1, on_scenes=counted.append, shard=12)
    assert counted == [0, 12, 12]
    assert sorted(path.name for path in folder.iterdir()) == ["7-7000000.npy", "7-7000012.npy"]
    return pool


def test_the_pool_holds_the_scenes_of_its_seed(pool: ScenePool) -> None:
    assert len(pool) == 24
    picture, labels = pool[17]
    scene = draw_scene(7 * 10**6 + 17)
    np.testing.assert_array_equal(picture, scene.picture)
    np.testing.assert_array_equal(labels, scene.labels)


def test_shards_that_are_there_are_not_drawn_again(tmp_path: Path) -> None:
    counted: list[int] = []
    marked = np.full((2, 256, 256, 4), 9, np.uint8)
    np.save(tmp_path / "7-7000000.npy", marked)
    np.save(tmp_path / "7-7000002.npy", marked)
    (tmp_path / "7-7000004.part").touch()  # what a kill leaves
    found = scene_pool(tmp_path, 4, seed=7, workers=1, on_scenes=counted.append, shard=2)
    assert len(found) == 4
    assert found[3][0].max() == 9
    assert counted == [4]


@pytest.mark.parametrize(("size", "stride"), [(96, 4), (256, 4), (320, 2)])
def test_boxes_and_masks_agree(pool: ScenePool, size: int, stride: int) -> None:
    batch = draw_batch(pool, np.random.default_rng(1), 8, size, stride)
    targets = batch.targets
    assert batch.images.shape == (8, 3, size, size)
    assert 0 <= batch.images.min() < 0.3
    assert 0.7 < batch.images.max() <= 1
    assert targets["masks"].shape == (8, size // stride, size // stride)
    assert targets["cls"].shape == (len(targets["batch_idx"]), 1)
    assert len(targets["batch_idx"]) > 10
    for index in range(8):
        boxes = targets["bboxes"][targets["batch_idx"] == index] * size
        mask = targets["masks"][index]
        assert mask.max() <= len(boxes)
        for number, (x, y, width, height) in enumerate(boxes.tolist(), start=1):
            rows, columns = torch.nonzero(mask == number, as_tuple=True)
            if len(rows):  # a thin object may fall between the samples
                assert abs(columns.min() * stride - (x - width / 2)) <= 2 * stride + 6
                assert abs(rows.max() * stride - (y + height / 2)) <= 2 * stride + 6


def test_a_batch_repeats_by_its_generator_and_differs_from_the_next(pool: ScenePool) -> None:
    first, again = (draw_batch(pool, np.random.default_rng(4), 4, 96, 4) for _ in range(2))
    other = draw_batch(pool, np.random.default_rng(5), 4, 96, 4)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets["masks"], again.targets["masks"])
    assert not torch.equal(first.images, other.images)


def test_zooming_out_shows_the_letterbox_grey_without_objects() -> None:
    blank = np.zeros((256, 256, 3), np.uint8), np.ones((256, 256), np.uint8)
    for seed in range(40):
        picture, labels = mask_dataset._changed(np.random.default_rng(seed), *blank, 128)
        grey = (picture == GREY).all(axis=2)
        if grey.any():
            assert not labels[grey].any()
            return
    pytest.fail("no picture was zoomed out")


def test_objects_of_few_pixels_are_no_targets() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:5, :5], labels[20:30, 40:50] = 1, 2
    objects, boxes = mask_dataset._objects(labels)
    assert boxes == [(45.0, 25.0, 10.0, 10.0)]
    assert set(np.unique(objects)) == {0, 1}
    assert objects[25, 45] == 1
