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

    _unknown: tuple[str, ...] = PrivateAttr(())
    _sent: frozenset[str] = PrivateAttr(frozenset())

    @property
    def warnings(self) -> list[str]:
        """One sentence for each unknown field, at most MAX_NAMED and one for the rest."""
        found = [self._warning(name) for name in self._unknown[:MAX_NAMED]]
        if more := len(self._unknown) - len(found):
            found.append(f"{more} more fields are not fields of this request")
        return found

    @classmethod
    def _names(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    def _warning(self, name: str) -> str:
        meant = self._meant(name[:MAX_NAME_CHARS].lower())
        if meant in self._sent:
            # The request has that field already, so it was not meant by another name.
            meant = None
        shown = name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…"
        # A lone surrogate, which JSON may escape, cannot be sent back.
        shown = "".join(char if char.isprintable() else "?" for char in shown)
        hint = f"; did you mean {meant}?" if meant else ""
        return f"{shown} is not a field of this request{hint}"

    def _meant(self, name: str) -> str | None:
        """Return the field that a client likely meant: by whole words, or else by letters."""
        if name in self.also_called:
            return self.also_called[name]
        fields = {field.lower(): field for field in self._names()}
        words = set(name.split("_"))
        alike = [f for f in fields if words <= set(f.split("_")) or set(f.split("_")) <= words]
        close = difflib.get_close_matches(name, alike, 1, cutoff=0) or difflib.get_close_matches(
            name, fields, 1
        )
        return fields[close[0]] if close else None

    @model_validator(mode="wrap")
    @classmethod
    def _note_unknown(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        request = handler(data)
        if isinstance(data, dict):
            known = set(cls._names())
            request._unknown = tuple(str(name) for name in data if name not in known)
            request._sent = frozenset(name for name in known if data.get(name) is not None)
        return request


Warnings = Annotated[
    list[str],
    Field(description="what the server ignored or doubts in the request, a sentence each"),
]
