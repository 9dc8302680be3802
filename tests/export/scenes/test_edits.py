"""Scenes repeat by their seed and show what their fields say; a cast changes the colours."""

import numpy as np
import pytest

from export.demo_edits.score import angular_error
from export.scenes.edits import Scene, cast, draw_scene, extract

SEEDS = [[7, index] for index in range(12)]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed, 96) for seed in SEEDS]


def test_a_seed_names_a_scene(scenes: list[Scene]) -> None:
    again = draw_scene(SEEDS[0], 96)
    np.testing.assert_array_equal(again.picture, scenes[0].picture)
    np.testing.assert_array_equal(again.mask, scenes[0].mask)
    assert again.name == scenes[0].name
    assert not np.array_equal(scenes[0].picture, scenes[1].picture)


def test_the_object_is_all_that_differs_from_the_background(scenes: list[Scene]) -> None:
    for scene in scenes:
        np.testing.assert_array_equal(
            scene.picture[scene.mask == 0], scene.background[scene.mask == 0]
        )


def test_the_object_can_be_seen(scenes: list[Scene]) -> None:
    for scene in scenes:
        inside = scene.mask > 127
        assert 0.01 < inside.mean() < 0.3
        differs = np.abs(scene.picture[inside].astype(int) - scene.background[inside])
        assert differs.mean() > 30


def test_a_red_ball_is_red_and_round() -> None:
    found = (draw_scene([8, index], 96) for index in range(400))
    ball = next(scene for scene in found if scene.name == "red ball")
    red, green, blue = ball.picture[ball.mask > 250].mean(axis=0)
    assert red > 2 * max(green, blue)
    assert (ball.mask / 255).sum() == pytest.approx(np.pi * ball.radius**2, rel=0.05)


def test_backgrounds_are_cut_from_photographs_at_times() -> None:
    photograph = np.full((50, 80, 3), [10, 200, 30], np.uint8)
    cut = [draw_scene([9, index], 64, [photograph]) for index in range(60)]
    flat = [scene for scene in cut if (scene.background == [10, 200, 30]).all()]
    assert 2 <= len(flat) <= 20


def test_a_cast_turns_the_colours_and_keeps_the_brightness(scenes: list[Scene]) -> None:
    grey = np.full((8, 8, 3), 120, np.uint8)
    warm_or_cold = set()
    for seed in SEEDS:
        tinted = cast(seed, grey)
        assert angular_error(tinted, grey) > 4
        assert tinted[0, 0] @ [0.299, 0.587, 0.114] == pytest.approx(120, abs=1)
        warm_or_cold.add(bool(tinted[0, 0, 0] > tinted[0, 0, 2]))
    assert warm_or_cold == {True, False}
    assert cast(SEEDS[0], scenes[0].picture).shape == scenes[0].picture.shape


def test_an_extracted_object_fills_a_white_square() -> None:
    picture = np.full((60, 100, 3), 7, np.uint8)
    mask = np.zeros((60, 100), np.uint8)
    mask[10:30, 20:60] = 255
    square = extract(picture, mask)
    assert square.shape == (100, 100, 3)
    assert (square[:24] == 255).all()
    assert (square[26:74] == 7).all()
    assert (square[76:] == 255).all()
