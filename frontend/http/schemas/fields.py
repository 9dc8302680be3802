"""Owns what the JSON of several endpoints shares."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

MAX_PROMPT_CHARS = 4096
MAX_LABEL_CHARS = 256

# The type of an error between fields, whose text names them itself.
CROSS_FIELD = "cross_field"

# 1x1 pixel, so that the examples at /docs can be sent as they are.
EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)


def _whole(value: object) -> object:
    """JSON has one kind of number: 10.0 is an integer there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_whole)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
Label = Annotated[str, Field(max_length=MAX_LABEL_CHARS)]


class ErrorBody(BaseModel):
    """Every refusal."""

    detail: str
