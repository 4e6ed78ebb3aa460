"""Reads LOBSTER message and order-book files, plain or zipped, into arrays; every defect has a named error."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.paper.market.ktypes import I2, U1, i8
from shm.jit import kernel


class LobsterError(ValueError):
    """A LOBSTER file cannot be used; the message says which, why and what would help."""


class LobsterFileMissing(LobsterError):
    """No such file, or no message and order-book pair in it."""


class LobsterColumnsMismatch(LobsterError):
    """Columns, levels or row counts of the two files do not fit each other, or a value is no number."""


class LobsterTimeUnsorted(LobsterError):
    """Times go backwards."""


class LobsterNoRows(LobsterError):
    """Nothing is left to replay."""


_NAME = re.compile(
    r"(?P<symbol>[A-Za-z0-9.\-]+)_(?P<day>\d{4}-\d\d-\d\d)_\d+_\d+_(?P<kind>message|orderbook)_(?P<levels>\d+)\.csv"
)
_MESSAGE_COLUMNS = 6
_TIME_DIGITS = 9

PRICE_SCALE = 10_000
"""File prices are currency units times this."""


@dataclass(frozen=True, slots=True)
class LobsterDay:
    """One symbol's day. ``t_ns`` since midnight; ``price`` in 1/10,000; ``book`` int64 (n, 4 * levels) as in the file:
    ask price, ask size, bid price, bid size per level; row i is the book after message i."""

    symbol: str
    day: str
    levels: int
    t_ns: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    price: npt.NDArray[np.int64]
    direction: npt.NDArray[np.int64]
    book: npt.NDArray[np.int64]


@kernel(i8(U1, I2, i8))
def parse_table(text: Any, out: Any, time_digits: int) -> int:
    """Parse comma-separated whole numbers into ``out``; the first column is scaled by 10**time_digits.

    Returns the number of rows, or -(row + 1) of the first row that has other columns, another character, or no room.
    """
    columns = out.shape[1]
    row = 0
    i = 0
    n = len(text)
    while i < n:
        if text[i] == 10 or text[i] == 13:
            i += 1
            continue
        if row >= out.shape[0]:
            return -(row + 1)
        for c in range(columns):
            sign = 1
            if i < n and text[i] == 45:
                sign = -1
                i += 1
            value = 0
            first = i
            while i < n and 48 <= text[i] <= 57:
                value = value * 10 + int(text[i]) - 48
                i += 1
            if i == first:
                return -(row + 1)
            scaled = 0
            if i < n and text[i] == 46:
                i += 1
                while i < n and 48 <= text[i] <= 57:
                    digit = int(text[i]) - 48
                    if c == 0 and scaled < time_digits:
                        value = value * 10 + digit
                        scaled += 1
                    elif c > 0 and digit != 0:
                        return -(row + 1)
                    i += 1
            if c == 0:
                for _ in range(time_digits - scaled):
                    value *= 10
            out[row, c] = sign * value
            if c < columns - 1:
                if i >= n or text[i] != 44:
                    return -(row + 1)
                i += 1
        if i < n and text[i] != 10 and text[i] != 13:
            return -(row + 1)
        row += 1
    return row


def read_lobster(path: str | Path | tuple[str | Path, str | Path], symbol: str | None = None) -> LobsterDay:
    """Read a day from a zip or folder that holds the two files, from one of the two files, or from both given.

    ``symbol`` chooses when there are several. Raises the named errors above.
    """
    texts = _texts(path, symbol)
    (message_name, message_text), (book_name, book_text) = texts["message"], texts["orderbook"]
    match = _NAME.fullmatch(message_name)
    levels = int(match["levels"]) if match else (book_text[: book_text.find(b"\n")].count(b",") + 1) // 4
    messages = _table(message_name, message_text, _MESSAGE_COLUMNS, _TIME_DIGITS)
    book = _table(book_name, book_text, 4 * levels, 0)
    if len(messages) != len(book):
        raise LobsterColumnsMismatch(
            f"{message_name} has {len(messages)} rows and {book_name} has {len(book)}: "
            "both must come from the same download"
        )
    if not len(messages):
        raise LobsterNoRows(f"{message_name}: no rows; use a file that is not empty")
    t_ns = np.ascontiguousarray(messages[:, 0])
    back = np.flatnonzero(np.diff(t_ns) < 0)
    if len(back):
        raise LobsterTimeUnsorted(
            f"{message_name} row {back[0] + 2}: time {t_ns[back[0] + 1] / 1e9:.9f} s is before the row above it; "
            "sort both files together or download them again"
        )
    name, day = (match["symbol"], match["day"]) if match else (symbol or Path(message_name).stem, "")
    column = [np.ascontiguousarray(messages[:, c]) for c in range(_MESSAGE_COLUMNS)]
    return LobsterDay(symbol or name, day, levels, t_ns, column[1], column[3], column[4], column[5], book)


def _table(name: str, text: bytes, columns: int, time_digits: int) -> npt.NDArray[np.int64]:
    rows = text.count(b"\n") + 1
    first = text[: text.find(b"\n")] if b"\n" in text else text
    found = first.count(b",") + 1
    if text and found != columns:
        raise LobsterColumnsMismatch(
            f"{name}: {found} columns where {columns} are needed"
            + ("" if time_digits else f" (4 for each of {columns // 4} levels)")
            + "; check that the file's name and content belong together"
        )
    out = np.empty((rows, columns), np.int64)
    count = int(parse_table(np.frombuffer(text, np.uint8), out, time_digits))
    if count < 0:
        raise LobsterColumnsMismatch(f"{name} row {-count}: not {columns} comma-separated whole numbers")
    return out[:count]


def _texts(path: str | Path | tuple[str | Path, str | Path], symbol: str | None) -> dict[str, tuple[str, bytes]]:
    if isinstance(path, tuple):
        files = [Path(p) for p in path]
        texts = {kind: (p.name, _read(p)) for kind, p in zip(("message", "orderbook"), files, strict=True)}
        if "orderbook" in files[0].name and "message" in files[1].name:
            texts = {"message": texts["orderbook"], "orderbook": texts["message"]}
        return texts
    source = Path(path)
    if source.suffix == ".zip":
        try:
            with zipfile.ZipFile(source) as archive:
                chosen = _choose(source, archive.namelist(), symbol)
                return {kind: (Path(name).name, archive.read(name)) for kind, name in chosen.items()}
        except FileNotFoundError:
            raise LobsterFileMissing(f"{source}: no such file") from None
        except zipfile.BadZipFile:
            raise LobsterFileMissing(f"{source}: not a zip archive; download it again") from None
    if source.is_dir():
        chosen = _choose(source, (p.name for p in source.iterdir()), symbol)
        return {kind: (name, _read(source / name)) for kind, name in chosen.items()}
    if not source.exists():
        raise LobsterFileMissing(f"{source}: no such file")
    kind, other = ("message", "orderbook") if "_message_" in source.name else ("orderbook", "message")
    twin = source.with_name(source.name.replace(f"_{kind}_", f"_{other}_"))
    if twin == source:
        raise LobsterFileMissing(f"{source}: not named like a LOBSTER file; give both files as (message, orderbook)")
    return {kind: (source.name, _read(source)), other: (twin.name, _read(twin))}


def _choose(source: Path, names: Iterable[str], symbol: str | None) -> dict[str, str]:
    pairs: dict[str, dict[str, str]] = {}
    for name in names:
        match = _NAME.fullmatch(Path(name).name)
        if match and symbol in (None, match["symbol"]):
            key = Path(name).name.replace(f"_{match['kind']}_", "_")
            pairs.setdefault(key, {})[match["kind"]] = name
    whole = [pair for _, pair in sorted(pairs.items()) if len(pair) == 2]
    wanted = f" of {symbol}" if symbol else ""
    if not whole:
        raise LobsterFileMissing(
            f"{source}: holds no message and orderbook pair{wanted} (NAME_date_start_end_message_LEVELS.csv)"
        )
    if len(whole) > 1:
        raise LobsterFileMissing(
            f"{source}: holds {len(whole)} pairs{wanted}; name the symbol, or give one pair's files"
        )
    return whole[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise LobsterFileMissing(f"{path}: no such file; message and orderbook files are needed together") from None
