"""Scenes repeat by seed, and their labels say where the objects are."""

import numpy as np
import numpy.typing as npt
import pytest

from export.scenes.masks import MAX_OBJECTS, MIN_AREA, Scene, draw_scene

SIZE = 128


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed, SIZE) for seed in range(60)]


def test_a_seed_names_a_scene(scenes: list[Scene]) -> None:
    again = draw_scene(3, SIZE)
    np.testing.assert_array_equal(again.picture, scenes[3].picture)
    np.testing.assert_array_equal(again.labels, scenes[3].labels)
    assert (scenes[4].picture != scenes[3].picture).any()


def test_pictures_and_labels_have_one_size(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.picture.shape == (SIZE, SIZE, 3)
        assert scene.labels.shape == (SIZE, SIZE)
        assert scene.picture.dtype == scene.labels.dtype == np.uint8


def test_labels_count_up_without_gaps_and_none_is_tiny(scenes: list[Scene]) -> None:
    for scene in scenes:
        values, areas = np.unique(scene.labels, return_counts=True)
        assert values.max() <= MAX_OBJECTS
        assert list(values[values > 0]) == list(range(1, values.max() + 1))
        assert areas[values > 0].min(initial=SIZE * SIZE) >= MIN_AREA * SIZE * SIZE


def test_scenes_vary_in_number_and_size_of_objects(scenes: list[Scene]) -> None:
    counts = {int(scene.labels.max()) for scene in scenes}
    assert len(counts) >= 6
    fractions = [(scene.labels > 0).mean() for scene in scenes]
    assert min(fractions) < 0.05
    assert max(fractions) > 0.5


def test_rims_of_objects_are_edges_in_the_picture(scenes: list[Scene]) -> None:
    """Shifted or mirrored labels would lie no closer to edges than anything else."""

    def contrast(scene: Scene, labels: npt.NDArray[np.uint8]) -> float:
        steps = np.abs(np.diff(scene.picture.astype(int), axis=1)).max(axis=2)
        rims = np.diff(labels.astype(int), axis=1) != 0
        return float(steps[rims].mean()) if rims.any() else np.nan

    true = np.nanmean([contrast(scene, scene.labels) for scene in scenes])
    mirrored = np.nanmean([contrast(scene, scene.labels[:, ::-1]) for scene in scenes])
    assert true > 2.5 * mirrored
