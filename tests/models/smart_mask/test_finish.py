from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from skimage import filters
from skimage.morphology import closing, dilation, disk, erosion, opening

from smart_mask.finish import MAX_BORDER, finish

if TYPE_CHECKING:
    from smart_mask.letterbox import Floats, Pixels


def disc(radius: int = 60, width: int = 240, height: int = 200) -> Pixels:
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), radius, 255, -1)
    return mask


def blobs(seed: int, width: int = 300, height: int = 260) -> Pixels:
    noise = np.random.default_rng(seed).random((height, width))
    smooth = filters.gaussian(noise, 6)
    return np.where(smooth > np.quantile(smooth, 0.6), np.uint8(255), np.uint8(0))


def reference(mask: Pixels, border: int, *, blur: bool) -> Floats:
    """Return the chain by scikit-image, in floats over the whole picture; 0..1."""
    sigma = max(3.0, min(mask.shape) / 200)
    sigma = max(4.0, 1.5 * sigma) if blur else sigma

    def smooth(values: Pixels, by: float) -> Floats:
        result: Floats = filters.gaussian((values > 0).astype(np.float32), by, mode="nearest")
        return result

    mask = opening(mask, disk(3))
    if border:
        move = dilation if border > 0 else erosion
        mask = move(mask, disk(max(1, abs(border) // 2)))
    mask = filters.rank.median(mask, disk(1))
    mask = closing((smooth(mask, sigma) > 0.25).astype(np.uint8), disk(2))
    mask = erosion((smooth(mask, 0.7 * sigma) > 0.4).astype(np.uint8), disk(1))
    return smooth(mask, 0.3 * sigma)


@pytest.mark.parametrize("border", [-10, -1, 0, 1, 7, 10])
@pytest.mark.parametrize("blur", [False, True])
def test_the_chain_is_that_of_scikit_image(border: int, *, blur: bool) -> None:
    for mask in (disc(), blobs(1), blobs(2)):
        ours = finish(mask, border=border, blur=blur).astype(np.float32) / 255
        theirs = reference(mask, border, blur=blur)
        # Eight bits and smaller copies move an edge by less than an eighth of a pixel.
        edge = dilation(theirs > 0.5, disk(1)) & (theirs <= 0.5)
        assert np.abs(ours - theirs).sum() < edge.sum() / 8
        assert ((ours > 0.5) != (theirs > 0.5)).sum() < edge.sum() / 8


def test_the_chain_is_the_same_on_a_large_picture() -> None:
    """Where its Gaussians are wide, and computed on much smaller copies."""
    mask = cv2.resize(blobs(3), (2000, 2400), interpolation=cv2.INTER_LINEAR)
    mask = np.where(mask > 127, np.uint8(255), np.uint8(0))
    ours = finish(mask, border=0, blur=True).astype(np.float32) / 255
    theirs = reference(mask, 0, blur=True)
    edge = dilation(theirs > 0.5, disk(1)) & (theirs <= 0.5)
    assert ((ours > 0.5) != (theirs > 0.5)).sum() < edge.sum() / 2


def test_what_is_far_from_the_mask_stays_black() -> None:
    mask = np.zeros((400, 400), np.uint8)
    mask[50:80, 60:100] = 255
    finished = finish(mask, border=10, blur=True)
    assert finished[60, 80] == 255
    assert not finished[150:].any()
    assert not finished[:, 180:].any()


def test_a_region_gives_what_the_whole_picture_gives() -> None:
    small = disc(30, 120, 120)
    large = np.zeros((1500, 120), np.uint8)
    large[700:820] = small
    expected = finish(cv2.copyMakeBorder(small, 200, 200, 0, 0, 0), border=4, blur=False)
    assert (finish(large, border=4, blur=False)[500:1020] == expected).all()


def test_an_empty_mask_stays_empty() -> None:
    assert not finish(np.zeros((20, 30), np.uint8), border=10, blur=True).any()


def test_a_full_mask_stays_full() -> None:
    full = np.full((90, 70), 255, np.uint8)
    assert (finish(full, border=0, blur=False) == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 3)])
def test_the_smallest_pictures_keep_their_object(shape: tuple[int, int]) -> None:
    assert (finish(np.full(shape, 255, np.uint8), border=0, blur=False) == 255).all()


def test_a_thin_object_is_not_opened_away() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 48:53] = 255
    assert finish(mask, border=0, blur=False)[50, 50] > 200


def test_specks_go() -> None:
    mask = disc()
    mask[5:8, 5:8] = 255
    assert not finish(mask, border=0, blur=False)[:20, :20].any()


@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("radius", [1, 2, 3, 4])
def test_the_smallest_objects_do_not_vanish(radius: int, *, blur: bool) -> None:
    finished = finish(disc(radius, 64, 64), border=0, blur=blur)
    assert finished.max() > 127
    assert finished[32, 32] > 127


def test_what_is_shrunk_away_is_gone() -> None:
    assert finish(disc(8, 64, 64), border=-40, blur=False).max() <= 127


@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("side", [512, 1500, 2600])
def test_no_step_of_the_border_makes_less_of_the_mask(side: int, *, blur: bool) -> None:
    """The region and the grids of its smaller copies must not depend on the border."""
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 3 + 7, side // 2), (side // 5, side // 7), 20, 0, 360, 255, -1)
    finished = [finish(mask, border=border, blur=blur) > 127 for border in range(-6, 7)]
    for smaller, larger in itertools.pairwise(finished):
        assert not (smaller & ~larger).any()


def test_the_border_moves_monotonously() -> None:
    areas = [
        int(finish(disc(), border=border, blur=False).sum(dtype=np.int64))
        for border in (-MAX_BORDER, -20, -10, -5, -2, 0, 2, 5, 10, 20, MAX_BORDER)
    ]
    assert areas == sorted(areas)
    assert len(set(areas)) == len(areas)


def test_blur_softens_the_edge() -> None:
    def soft(*, blur: bool) -> int:
        finished = finish(disc(), border=0, blur=blur)
        return int(((finished > 5) & (finished < 250)).sum())

    assert soft(blur=True) > soft(blur=False) > 0
