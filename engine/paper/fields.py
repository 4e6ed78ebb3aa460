"""Text fields of the TWS protocol: NUL-terminated, numbers in decimal, unset values empty or at the type's maximum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

UNSET_INTEGER = 2147483647
UNSET_DOUBLE = 1.7976931348623157e308
UNSET_DOUBLE_TEXT = "1.7976931348623157E308"
"""As the Java server writes it."""

MAX_INTEGER = 2**63 - 1


class FieldError(ValueError):
    """A request that can't be read: which field, which value, what is allowed."""


@lru_cache(maxsize=8192)
def number(value: float) -> str:
    """Shortest decimal text of a price, size or amount; NaN is an empty field, infinity ``Infinite``."""
    if value != value:
        return ""
    if math.isinf(value):
        return "Infinite"
    if value == UNSET_DOUBLE:
        return UNSET_DOUBLE_TEXT
    whole = int(value)
    if value == whole and -1e15 < value < 1e15:
        return str(whole)
    return repr(round(value, 10))


@lru_cache(maxsize=8192)
def price(value: float) -> str:
    """A price: like ``number`` without the noise of float arithmetic beyond 6 decimals."""
    return number(round(value, 6)) if math.isfinite(value) else number(value)


def text(value: object) -> str:
    """One field of an outgoing message."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    raise TypeError(f"a field can't hold {type(value).__name__}; allowed are str, bool, int, float and None")


def payload(*values: object) -> bytes:
    """All fields of one message, each terminated by NUL; non-ASCII characters are escaped as \\uXXXX."""
    return joined(map(text, values))


def joined(texts: Iterable[str]) -> bytes:
    """``payload`` of fields that are texts already."""
    return encoded("\0".join(texts) + "\0")


def encoded(whole: str) -> bytes:
    """A message of fields with their ends; characters outside ASCII are escaped."""
    if whole.isascii():
        return whole.encode("ascii")
    return "".join(c if ord(c) < 128 else f"\\u{ord(c):04x}" for c in whole).encode("ascii")


class FieldReader:
    """Reads the fields of one request forward, by name, so that a bad one can be reported."""

    __slots__ = ("_fields", "_pos")

    def __init__(self, message: bytes) -> None:
        try:
            decoded = message.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FieldError(f"the message is not UTF-8 text (byte {error.start}); send NUL-terminated text") from None
        if not decoded.endswith("\0"):
            raise FieldError("the last field is not terminated by NUL; terminate every field")
        self._fields = decoded.split("\0")
        self._fields.pop()
        self._pos = 0

    @property
    def count(self) -> int:
        """Fields in the message, the id included."""
        return len(self._fields)

    @property
    def raw(self) -> list[str]:
        """All fields, for error messages."""
        return self._fields

    @property
    def left(self) -> int:
        """Fields not read yet."""
        return len(self._fields) - self._pos

    def text(self, name: str) -> str:
        """The next field as it is."""
        if self._pos >= len(self._fields):
            raise FieldError(f"field {name!r} is missing: the message has only {len(self._fields)} fields")
        value = self._fields[self._pos]
        self._pos += 1
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """The next field as an integer; empty is ``default``."""
        raw = self.text(name)
        if not raw:
            return default
        try:
            value = int(raw)
        except ValueError:
            raise FieldError(f"field {name!r} is {raw[:40]!r}, expected an integer") from None
        if abs(value) > MAX_INTEGER:
            raise FieldError(f"field {name!r} is {raw[:40]!r}, expected at most 64 bits")
        return value

    def number(self, name: str) -> float:
        """The next field as a float; empty and the type's maximum are NaN (unset)."""
        raw = self.text(name)
        if not raw:
            return math.nan
        if raw == "Infinite":
            return math.inf
        try:
            value = float(raw)
        except ValueError:
            raise FieldError(f"field {name!r} is {raw[:40]!r}, expected a number") from None
        return math.nan if value == UNSET_DOUBLE else value

    def flag(self, name: str) -> bool:
        """The next field as a truth value; empty is false."""
        raw = self.text(name)
        if raw in ("", "0", "false"):
            return False
        if raw in ("1", "true"):
            return True
        raise FieldError(f"field {name!r} is {raw[:40]!r}, expected 0 or 1")

    def count_of(self, name: str, limit: int = 1000) -> int:
        """The next field as the length of a repeated group."""
        value = self.integer(name)
        if not 0 <= value <= limit:
            raise FieldError(f"field {name!r} is {value}, allowed is 0..{limit}")
        return value

    def skip(self, names: str) -> None:
        """Pass over one field for each word in ``names``."""
        end = self._pos + names.count(" ") + 1
        if end > len(self._fields):
            self._pos = len(self._fields)
            self.text(names.split()[len(self._fields) - end])
        self._pos = end

    def end(self) -> None:
        """Raises FieldError if fields are left over: a request of another layout must not be guessed at."""
        if self.left:
            raise FieldError(f"{self.left} fields too many ({self.count} in all); check the server version in use")
