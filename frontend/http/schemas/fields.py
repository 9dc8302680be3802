"""Owns the fields and examples that the JSON of several endpoints shares."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from frontend.domain.jobs import JobStatus

MAX_PROMPT_CHARS = 4096
MAX_LABEL_CHARS = 256

# The type of an error between fields; its text names the fields itself.
CROSS_FIELD = "cross_field"

# A red ball on a table, 96x96 pixels, so that the examples at /docs can be sent as they are.
EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAGAAAABgBAMAAAAQtmoLAAAAGFBMVEXY1cjWzsHWzsDXpJeeclKWcE6Uc1C0MyoAHeR4"
    "AAABkUlEQVR42u2WS2rDMBCGfyXuNvYi0GWosy+GGLJ1cU/QHKHn6xnaAzTQEwhBuiy2knUidREnlW2NZO9KK4GNNMyn"
    "GWkeiKUYNyYIQAACEID/BkR2cV2D3Q0HKpmm0FymAwG+XGcATq9bC8H6Mp6Xzez4Mhlw6GpdXs1vKj+g5oXh8LPwArtN"
    "64j30gOovL1+nHmAz6K9nj5J57WqEniXmGdXyU3stLDLcJTAlyFauACVA29A8zuPlXAAhwJHAMDJvCgXcJloQ/hAA2pl"
    "rQBBW0isCb0ggV1mLYGYBFjzXf7NKChALwFMzwFuRVtQQHLZjxUjmkCUACW6ntpz6XxJeXeLaUJZyAg3YgI4YCTwF5px"
    "TClJKtIfBMDGurQ3I82Nxa1d/1QZHTNaDbBg6kSp3z9G6sz8Z24D0g4IZ4mOqmktbPoKI9sMkzRQe4/QAWw+qdiVrTOf"
    "R11g3zdRO+tB90xo6S6gnona83TQnSri3hKVgg6aPUGVsM/pjP7RsuhbS0A1jnMx+EXGw7s1AAH4HcA3pz9hluaypg0A"
    "AAAASUVORK5CYII="
)
# White on the ball.
EXAMPLE_MASK = (
    "iVBORw0KGgoAAAANSUhEUgAAAGAAAABgCAAAAADH8yjkAAAAyElEQVR42u2YwRXDIAxDLe+/szpBwCD3QVr9K1hCxhyS"
    "CGOMMcYYY0qgvpVbZdhQX6rEnnq9OAX954WlQ1CrT01/HiJDFKBmwBBbODGgMmMFA+6+kaIBI3SHbNAfbs34MtkRYLT5"
    "XAKu6fC6BFwV4n1T9HIDrivRd2ADG9xmgHUl/NsdoKlDvzym6OnQyRahJcAoATr0z04RGgKME3R8zKf+HwDKQ4OqP71k"
    "iPqVI1IqT6kHegeHIRpGYOCBhjfyaIIwxhhjLuMDJIkgX4Q6q1oAAAAASUVORK5CYII="
)


def _whole(value: object) -> object:
    """Return 10.0 as 10, because JSON has only one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Stands after bounds: pydantic documents bounds that follow a validator by names of its own.
WHOLE = BeforeValidator(_whole)
Int = Annotated[int, WHOLE]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
Label = Annotated[str, Field(max_length=MAX_LABEL_CHARS)]


class ErrorBody(BaseModel):
    """The body of every error."""

    detail: str


class NoResultBody(ErrorBody):
    """There is no result, and perhaps there will never be one."""

    status: Annotated[JobStatus, Field(description="of the job")]
    ended: Annotated[
        bool, Field(description="true: stop polling, the job will never complete; false: wait")
    ]
