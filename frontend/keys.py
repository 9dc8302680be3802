"""Owns API keys: the file that names them, making one, and tokens for one event stream."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import string
import time
import tomllib
from typing import TYPE_CHECKING, Annotated

import pydantic
import structlog

from frontend.domain.jobs import MAX_NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

log = structlog.get_logger()

PREFIX = "am_"
# 43 digits of base 62 hold 256 random bits, so a fast hash is enough: nobody guesses one.
DIGITS = string.ascii_letters + string.digits
KEY_DIGITS = 43
# A token is for one stream, which must begin within this time.
TOKEN_S = 600

Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Count = Annotated[int, pydantic.Field(ge=1, le=MAX_NUMBER, strict=True)]


class KeysError(Exception):
    """The keys file cannot be used; the text never has a part of a key."""


class Key(pydantic.BaseModel):
    """One entry of the keys file. A bound that is None is the server's for every owner."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Name
    sha256: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    """Of the key, hexadecimal."""
    max_waiting: Count | None = None
    max_bytes: Count | None = None
    max_running: Count | None = None
    per_minute: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] | None = None


class _File(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: list[Key] = []


def make(name: str) -> tuple[str, str]:
    """Return a new key, and the lines of the keys file that let it in.

    Raises:
        KeysError: `name` cannot be a key's.
    """
    key = PREFIX + "".join(secrets.choice(DIGITS) for _ in range(KEY_DIGITS))
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        entry = Key(name=name, sha256=digest)
    except pydantic.ValidationError:
        raise KeysError("a name has 1 to 64 letters, digits, - and _") from None
    return key, f'[[key]]\nname = "{entry.name}"\nsha256 = "{entry.sha256}"\n'


class Keys:
    """The keys of a file, which is read again whenever it has changed.

    A file that cannot be read, or has a mistake, changes nothing until it is mended: the keys
    before stay good, and the log says what is wrong.

    Args:
        path: the file.
        clock: the time in seconds since 1970.

    Raises:
        KeysError: the file cannot be used now.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._state = self._file_state()
        self._keys = self._read()

    def find(self, secret: str) -> Key | None:
        """Return the key that a client has sent, or None if there is no such key."""
        sent = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        found = None
        for key in self._current().values():
            # No early end: the time says nothing about which key it was.
            if hmac.compare_digest(key.sha256, sent):
                found = key
        return found

    def token(self, name: str, subject: str) -> str:
        """Return a token that stands for a key for TOKEN_S seconds, for one subject.

        Every frontend with the same keys file takes it. It ends with its key.

        Args:
            name: the key's.
            subject: what it is good for.

        Raises:
            KeysError: the key has gone.
        """
        if (key := self._current().get(name)) is None:
            raise KeysError("the key has gone")
        expiry = int(self._clock()) + TOKEN_S
        return f"{name}.{expiry}.{_signature(key, expiry, subject)}"

    def find_token(self, token: str, subject: str) -> Key | None:
        """Return the key that a token stands for, or None if it is no good for this subject."""
        name, _, rest = token.partition(".")
        expiry, _, signature = rest.partition(".")
        key = self._current().get(name)
        if key is None or not (expiry.isascii() and expiry.isdecimal() and len(expiry) <= 12):
            return None
        expected = _signature(key, int(expiry), subject)
        good = hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))
        return key if good and self._clock() < int(expiry) else None

    def _current(self) -> Mapping[str, Key]:
        state = self._file_state()
        if state != self._state:
            self._state = state
            try:
                self._keys = self._read()
                log.info("keys_read", keys=len(self._keys))
            except KeysError as error:
                log.error("keys_not_read", reason=str(error))
        return self._keys

    def _file_state(self) -> tuple[int, ...] | None:
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _read(self) -> dict[str, Key]:
        try:
            return _parsed(self._path.read_text())
        except OSError as error:
            raise KeysError(f"cannot read {self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise KeysError(f"{self._path} is no text") from None
        except KeysError as error:
            raise KeysError(f"{self._path}: {error}") from None


def _parsed(text: str) -> dict[str, Key]:
    """Return the keys of a keys file by their names."""
    try:
        keys = _File.model_validate(tomllib.loads(text)).key
    except tomllib.TOMLDecodeError as error:
        raise KeysError(f"not TOML: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(each + 1 if isinstance(each, int) else each) for each in first["loc"])
        raise KeysError(f"{place}: {first['msg']}") from None
    by_name: dict[str, Key] = {}
    names: dict[str, str] = {}
    for key in keys:
        if key.name in by_name:
            raise KeysError(f'[[key]] "{key.name}" is there twice: remove its old entry')
        if key.sha256 in names:
            raise KeysError(f'[[key]] "{key.name}" has the sha256 of "{names[key.sha256]}"')
        by_name[key.name], names[key.sha256] = key, key.name
    return by_name


def _signature(key: Key, expiry: int, subject: str) -> str:
    message = f"artmancer stream\n{expiry}\n{subject}".encode()
    digest = hmac.digest(bytes.fromhex(key.sha256), message, "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
