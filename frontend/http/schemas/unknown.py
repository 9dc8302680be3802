"""Owns noticing the fields of a request that the API does not have, and naming the meant ones."""

import difflib
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

# Bounds on what a client's own words may add to the answer.
MAX_NAMED = 20
MAX_NAME_CHARS = 40


class JsonRequest(BaseModel):
    """A request's JSON. Unknown fields are ignored, but `warnings` names them."""

    also_called: ClassVar[dict[str, str]] = {}
    """Names that clients send for a field whose own name is not like them."""

    _warnings: list[str] = PrivateAttr(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What `warnings_about` found, and what `warn` was told."""
        return self._warnings

    def warn(self, *sentences: str) -> None:
        """Note what is doubtful in the request's pictures, which only reading them shows."""
        self._warnings.extend(sentences)

    @classmethod
    def warnings_about(cls, body: object) -> list[str]:
        """Return a sentence for each unknown field, at most MAX_NAMED and one for the rest.

        Args:
            body: what the JSON says, whether it is a valid request or not.
        """
        if not isinstance(body, dict):
            return []
        names = cls._names()
        unknown = [str(name) for name in body if name not in names]
        sent = {name for name in names if body.get(name) is not None}
        found = [cls._warning(name, sent) for name in unknown[:MAX_NAMED]]
        if more := len(unknown) - len(found):
            found.append(f"{more} more fields are not fields of this request")
        return found

    @classmethod
    def _names(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def _warning(cls, name: str, sent: set[str]) -> str:
        meant = cls._meant(name[:MAX_NAME_CHARS].lower())
        if meant in sent:
            # The request has that field already, so it was not meant by another name.
            meant = None
        shown = name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…"
        # A lone surrogate, which JSON may escape, cannot be sent back.
        shown = "".join(char if char.isprintable() else "?" for char in shown)
        hint = f"; did you mean {meant}?" if meant else ""
        return f"{shown} is not a field of this request{hint}"

    @classmethod
    def _meant(cls, name: str) -> str | None:
        """Return the field that a client likely meant: by whole words, or else by letters."""
        one = _singular(name)
        if one in cls.also_called:
            return cls.also_called[one]
        fields = {field.lower(): field for field in cls._names()}
        alike = (
            [f for f in fields if _singular(f) == one]
            or [f for f in fields if _share_words(name, f)]
            or [f for f in fields if _share_words(one, _singular(f))]
        )
        close = difflib.get_close_matches(name, alike, 1, cutoff=0) or difflib.get_close_matches(
            name, fields, 1
        )
        return fields[close[0]] if close else None

    @model_validator(mode="wrap")
    @classmethod
    def _note_unknown(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        request = handler(data)
        request._warnings = cls.warnings_about(data)
        return request


def _singular(name: str) -> str:
    return "_".join(word.removesuffix("s") for word in name.split("_"))


def _share_words(name: str, field: str) -> bool:
    """Return whether all words of one are words of the other."""
    words, own = set(name.split("_")), set(field.split("_"))
    return words <= own or own <= words


Warnings = Annotated[
    list[str],
    Field(description="what the server ignored or doubts in the request, a sentence each"),
]
