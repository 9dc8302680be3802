"""Owns the size of an edit's answer, which the frontend promises and the models keep."""

Size = tuple[int, int]
"""Width and height in pixels."""

# Longest side up to the first number -> side of the square.
_SQUARES = ((640, 512), (896, 768), (1280, 1024), (1792, 1536))
_LARGEST_SQUARE = 2048


def square_side(longest: int) -> int:
    """Return the side of the square in which a picture with this longest side is returned."""
    return next((side for limit, side in _SQUARES if longest <= limit), _LARGEST_SQUARE)


def answer_size(
    picture: Size, *, resized: bool | None, width: int | None, height: int | None
) -> Size | None:
    """Return the size of an edit's answer; None if it depends on `resized`, which is unknown.

    Args:
        picture: as shown, turned by its orientation.
        resized: whether the answer is a padded square; None: unknown.
        width: as asked for; None: not asked for.
        height: as `width`.
    """
    if width and height:
        return width, height
    if resized is None:
        return None
    side = square_side(max(picture))
    own = (side, side) if resized else picture
    return width or own[0], height or own[1]
