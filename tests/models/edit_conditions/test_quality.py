import pytest

from edit_conditions.quality import check_aspect, letterboxed_size
from model_kit.errors import CodedError
from model_kit.sizes import square_side


@pytest.mark.parametrize(
    ("longest", "side"),
    [
        (1, 512),
        (640, 512),
        (641, 768),
        (896, 768),
        (897, 1024),
        (1280, 1024),
        (1281, 1536),
        (1792, 1536),
        (1793, 2048),
        (4096, 2048),
    ],
)
def test_the_square_follows_the_longest_side(longest: int, side: int) -> None:
    assert square_side(longest) == side
    assert letterboxed_size((longest, longest), side) == (side, side)


def test_a_picture_fills_its_square_and_truncates() -> None:
    # 300x101 is enlarged by 512/300: 101 x 1.7066 = 172.37, so 172 rows.
    assert letterboxed_size((300, 101), 512) == (512, 172)
    assert letterboxed_size((101, 300), 512) == (172, 512)
    assert letterboxed_size((512, 1024), 1024) == (512, 1024)
    assert letterboxed_size((4000, 3000), 2048) == (2048, 1536)


def test_a_hairline_keeps_one_pixel() -> None:
    assert letterboxed_size((1, 2000), 2048) == (1, 2048)
    assert letterboxed_size((5000, 1), 2048) == (2048, 1)


@pytest.mark.parametrize("size", [(1, 1), (100, 1), (1, 100), (2000, 20)])
def test_a_strip_up_to_100_to_1_is_taken(size: tuple[int, int]) -> None:
    check_aspect(size, "IMAGE")


@pytest.mark.parametrize("size", [(1, 101), (101, 1), (2001, 20)])
def test_a_longer_strip_is_refused_by_name(size: tuple[int, int]) -> None:
    with pytest.raises(
        CodedError, match=rf"REGION: {size[0]}x{size[1]} is more elongated than 100:1"
    ):
        check_aspect(size, "REGION")
