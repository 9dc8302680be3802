from pathlib import Path

import numpy as np
import pytest
import torch

from edit_conditions.fill import MAX_SIDE, PLAIN, Inpaint, fill_masked, load_lama, telea
from edit_conditions.images import Pixels

from .pictures import flat, mask_with, noise

# TorchScript is deprecated, and big-lama is published as nothing else.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


class InvertMasked(torch.nn.Module):
    """Stands in for big-lama: inverts the hole, and shows what else it was given."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert image.shape[2] == image.shape[3]
        assert image.shape[2] % 8 == 0
        assert mask.shape[1] == 1
        return torch.where(mask == 1, 1 - image, image * 0.5)


@pytest.fixture(scope="module")
def lama(tmp_path_factory: pytest.TempPathFactory) -> Inpaint:
    path = tmp_path_factory.mktemp("lama") / "tiny.pt"
    torch.jit.script(InvertMasked()).save(path)  # type: ignore[no-untyped-call]
    return load_lama(path)


def test_telea_continues_the_surroundings() -> None:
    image = flat(60, 60, (40, 90, 200))
    mask = mask_with(60, 60, (20, 20, 15, 15))
    clean = image.copy()
    image[mask > 0] = 255
    assert abs(telea(image, mask).astype(int) - clean).max() <= 4


def test_only_masked_pixels_change() -> None:
    image, mask = noise(50, 40), mask_with(50, 40, (10, 10, 20, 20))
    filled = fill_masked(image, mask, telea)
    assert (filled[mask == 0] == image[mask == 0]).all()
    assert (filled[mask > 0] != image[mask > 0]).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2)])
@pytest.mark.parametrize("value", [0, 255])
def test_the_smallest_pictures_and_a_mask_of_everything_are_filled_too(
    size: tuple[int, int], value: int
) -> None:
    image = flat(*size, 77)
    mask = np.full(image.shape[:2], value, dtype=np.uint8)
    assert fill_masked(image, mask, telea).shape == image.shape


# A fill with no known pixel left must not hand the object back.
@pytest.mark.parametrize("size", [(40, 30), (1, 1), (MAX_SIDE + 100, 20)])
def test_a_mask_of_everything_gives_plain_grey_and_not_the_object(size: tuple[int, int]) -> None:
    image = noise(*size)
    filled = fill_masked(image, np.full(image.shape[:2], 255, dtype=np.uint8), telea)
    assert filled.shape == image.shape
    assert (filled == PLAIN).all()


def test_a_mask_that_covers_everything_at_the_smaller_scale_gives_grey_too() -> None:
    image = noise(MAX_SIDE * 2, 64)
    mask = np.full(image.shape[:2], 255, dtype=np.uint8)
    mask[::2, ::2] = 0  # every pixel at half the size has three masked ones in it
    filled = fill_masked(image, mask, telea)
    assert (filled[mask > 0] == PLAIN).all()
    assert (filled[mask == 0] == image[mask == 0]).all()


def test_a_large_picture_is_filled_at_a_smaller_scale_and_stays_sharp_elsewhere() -> None:
    seen: list[tuple[Pixels, Pixels]] = []

    def inpaint(image: Pixels, mask: Pixels) -> Pixels:
        seen.append((image, mask))
        return np.full_like(image, 9)

    image = noise(MAX_SIDE * 2, 64)
    mask = mask_with(MAX_SIDE * 2, 64, (101, 11, 1, 1), (200, 20, 40, 30))
    filled = fill_masked(image, mask, inpaint)
    small_image, small_mask = seen[0]
    assert small_image.shape == (32, MAX_SIDE, 3)
    assert small_mask.shape == (32, MAX_SIDE)
    assert set(np.unique(small_mask)) == {0, 255}
    assert small_mask[5, 50] == 255
    assert (filled[mask > 0] == 9).all()
    assert (filled[mask == 0] == image[mask == 0]).all()


def test_lama_gets_a_padded_square_in_0_to_1_and_is_cropped_back(lama: Inpaint) -> None:
    image, mask = noise(13, 7), mask_with(13, 7, (2, 3, 5, 2))
    filled = lama(image, mask)
    assert filled.shape == image.shape
    assert filled.dtype == np.uint8
    assert (filled[mask > 0] == 255 - image[mask > 0]).all()
    assert (filled[mask == 0] == np.rint(image[mask == 0] * 0.5)).all()


def test_what_lama_changes_outside_the_mask_is_dropped(lama: Inpaint) -> None:
    image, mask = noise(24, 24), mask_with(24, 24, (2, 3, 5, 2))
    filled = fill_masked(image, mask, lama)
    assert (filled[mask == 0] == image[mask == 0]).all()
    assert (filled[mask > 0] == 255 - image[mask > 0]).all()


def test_a_file_that_is_no_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "lama.pt"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"LAMA_MODEL: .*lama\.pt is not a TorchScript file"):
        load_lama(path)
