"""Market-data messages straight from the receive buffer into TICK records.

A frame is a 4-byte big-endian length and that many bytes: fields, each ended by a NUL, the first one being the message
id in decimal. ``decode`` walks the frames of a buffer, turns the hot ones (1 price, 2 size, 12 and 13 depth, 99 prints)
into ticks, skips those that nobody reads (46 strings), and stops at the first one that it leaves to the library, so
that the order of messages is kept. ``decode_fields`` is the same for one message already split into text: the fallback
for numbers that the compiled parser declines (exponents, more than 15 digits), and the oracle in tests.

Request ids of subscriptions are ``REQ_BASE + slot``; ``lines[slot]`` is ``line << 16 | symbol``, or -1 once cancelled:
a late message of a cancelled subscription is dropped.
"""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shm.jit import kernel, rec
from numba import types

from shm.layouts import TICK

REQ_BASE = 2_000_000_000
"""Above any order id, so that an error's id is either an order's or a subscription's."""
SLOTS = 4096
LINE_DEPTH, LINE_QUOTES, LINE_PRINTS, LINE_DETAILS, LINE_INDEX = 1, 2, 3, 4, 5
MAX_FRAME = 1 << 24

DONE, COLD, FULL, BAD = 0, 1, 2, 3
"""Why ``decode`` stopped: no whole frame left, a frame for the library, no room in ticks, a length out of range."""

_KIND_DEPTH, _KIND_QUOTE_PRICE, _KIND_QUOTE_SIZE, _KIND_TRADE, _KIND_INDEX = 1, 3, 4, 5, 6
_MAX_FIELDS = 12
_DECLINED = -2
_NO_INT = -9223372036854775808
_MAX_SECONDS = 9_223_372_035
"""More of them are not a time in ns."""
_PRICE_TYPES = (1, 2, 4, 6, 7, 9)
_SIZE_TYPES = (0, 3, 5, 8)
_TEN: npt.NDArray[np.float64] = np.power(10.0, np.arange(23, dtype=np.float64))


@kernel("float64(uint8[::1], int64, int64, float64[::1])")
def parse_number(buf, start, end, ten):  # type: ignore[no-untyped-def]
    """Decimal text to float64, correctly rounded; NaN for anything but at most 15 digits with an optional point."""
    at = start
    negative = False
    if at < end and buf[at] == 45:
        negative = True
        at += 1
    mantissa = np.int64(0)
    digits = 0
    decimals = 0
    point = False
    for i in range(at, end):
        c = buf[i]
        if 48 <= c <= 57:
            mantissa = mantissa * 10 + (c - 48)
            if mantissa > 0:
                digits += 1
            if point:
                decimals += 1
            if digits > 15 or decimals > 22:
                return math.nan
        elif c == 46 and not point:
            point = True
        else:
            return math.nan
    if end - at - (1 if point else 0) < 1:
        return math.nan
    value = float(mantissa) / ten[decimals]
    return -value if negative else value


@kernel("int64(uint8[::1], int64, int64)")
def parse_int(buf, start, end):  # type: ignore[no-untyped-def]
    """Decimal text to int64; _NO_INT for anything else. Empty is 0, as for the library."""
    value = np.int64(0)
    at = start
    negative = False
    if at < end and buf[at] == 45:
        negative = True
        at += 1
        if at == end:
            return np.int64(_NO_INT)
    for i in range(at, end):
        c = buf[i]
        if c < 48 or c > 57 or i - at > 17:
            return np.int64(_NO_INT)
        value = value * 10 + (c - 48)
    return -value if negative else value


@kernel("uint32(uint8[::1], int64, int64)")
def venue_hash(buf, start, end):  # type: ignore[no-untyped-def]
    """32-bit FNV-1a of a venue or market-maker name; 0 for an empty one."""
    if end <= start:
        return np.uint32(0)
    h = np.uint64(2166136261)
    for i in range(start, end):
        h = ((h ^ np.uint64(buf[i])) * np.uint64(16777619)) & np.uint64(0xFFFFFFFF)
    return np.uint32(h)


@kernel("int64(uint8[::1], int64, int64, int64[::1])")
def split(buf, start, end, fields):  # type: ignore[no-untyped-def]
    """Offsets of the first fields of a message: field i is buf[fields[i] : fields[i + 1] - 1]. Returns how many."""
    count = 0
    fields[0] = start
    for i in range(start, end):
        if buf[i] == 0:
            count += 1
            fields[count] = i + 1
            if count == _MAX_FIELDS:
                return count
    return count


@kernel(
    types.int64(
        types.uint8[::1], types.int64, types.int64, types.int64[::1], types.int64, types.float64[::1],
        types.int64[::1], rec(TICK), types.int64,
    )
)  # fmt: skip
def decode_frame(buf, start, end, lines, t_socket, ten, fields, ticks, n):  # type: ignore[no-untyped-def]
    """One message: 1 a tick was written to ``ticks[n]``, 0 nothing to write, DECLINED it is for the library."""
    if start + 2 > end:
        return _DECLINED
    first, second = buf[start], buf[start + 1]
    if second == 0:
        if first != 49 and first != 50:  # "1", "2"
            return _DECLINED
        message = first - 48
    elif start + 2 < end and buf[start + 2] == 0:
        message = (first - 48) * 10 + (second - 48)
        if message == 46:
            return 0
        if message != 12 and message != 13 and message != 99:
            return _DECLINED
    else:
        return _DECLINED
    count = split(buf, start, end, fields)
    # The library unpacks 1 and 99 strictly; the others may be longer.
    least = 7 if message == 1 else 5 if message == 2 else 8 if message == 12 else 9
    if count < least or (count > least and (message == 1 or message == 99)):
        return _DECLINED
    id_field = 1 if message == 99 else 2
    request = parse_int(buf, fields[id_field], fields[id_field + 1] - 1)
    if request == _NO_INT:
        return _DECLINED
    slot = request - REQ_BASE
    if slot < 0 or slot >= lines.shape[0] or lines[slot] < 0:
        return 0
    line = lines[slot] >> 16
    symbol = lines[slot] & 0xFFFF
    kind = 0
    side = 0
    op = 0
    level = np.int64(0)
    flags = 0
    price = math.nan
    size = math.nan
    venue = np.uint32(0)
    t_exchange = np.int64(0)
    if message == 13 or message == 12:
        if line != LINE_DEPTH:
            return 0
        kind = _KIND_DEPTH
        at = 5 if message == 13 else 4
        level = parse_int(buf, fields[3], fields[4] - 1)
        op = parse_int(buf, fields[at], fields[at + 1] - 1)
        side = parse_int(buf, fields[at + 1], fields[at + 2] - 1)
        price = parse_number(buf, fields[at + 2], fields[at + 3] - 1, ten)
        size = parse_number(buf, fields[at + 3], fields[at + 4] - 1, ten)
        if price != price or size != size or op < 0 or op > 2 or side < 0 or side > 1 or level == _NO_INT:
            return _DECLINED
        if level < 0 or level > 255:
            level = np.int64(255)
        if message == 13:
            venue = venue_hash(buf, fields[4], fields[5] - 1)
            if count > 9:
                smart = parse_int(buf, fields[9], fields[10] - 1)
                if smart == _NO_INT:
                    return _DECLINED
                flags = 1 if smart != 0 else 0
    elif message == 99:
        for i in (1, 2, 3, 6):  # an empty number is none here, as for the library
            if fields[i + 1] - 1 == fields[i]:
                return _DECLINED
        what = parse_int(buf, fields[2], fields[3] - 1)
        seconds = parse_int(buf, fields[3], fields[4] - 1)
        if what == _NO_INT or seconds < -_MAX_SECONDS or seconds > _MAX_SECONDS:
            return _DECLINED
        if parse_int(buf, fields[6], fields[7] - 1) == _NO_INT:
            return _DECLINED
        if line != LINE_PRINTS or (what != 1 and what != 2):
            return 0
        kind = _KIND_TRADE
        price = parse_number(buf, fields[4], fields[5] - 1, ten)
        size = parse_number(buf, fields[5], fields[6] - 1, ten)
        if price != price or size != size:
            return _DECLINED
        t_exchange = seconds * 1_000_000_000
        venue = venue_hash(buf, fields[7], fields[8] - 1)
    else:
        level = parse_int(buf, fields[3], fields[4] - 1)
        if level == _NO_INT:
            return _DECLINED
        if message == 1:
            price = parse_number(buf, fields[4], fields[5] - 1, ten)
            size = 0.0 if fields[6] - 1 == fields[5] else parse_number(buf, fields[5], fields[6] - 1, ten)
            if price != price or size != size:
                return _DECLINED
            if line == LINE_INDEX:
                if level != 4:
                    return 0
                kind = _KIND_INDEX
            elif level == 1 or level == 2 or level == 4 or level == 6 or level == 7 or level == 9:
                kind = _KIND_QUOTE_PRICE
            else:
                return 0
            if price < 0.0:
                price = math.nan
        else:
            if line == LINE_INDEX or not (level == 0 or level == 3 or level == 5 or level == 8):
                return 0
            kind = _KIND_QUOTE_SIZE
            size = parse_number(buf, fields[4], fields[5] - 1, ten)
            if size != size:
                return _DECLINED
    ticks[n].sequence = 0
    ticks[n].t_socket_ns = t_socket
    ticks[n].t_decoded_ns = 0
    ticks[n].symbol = symbol
    ticks[n].kind = kind
    ticks[n].side = side
    ticks[n].op = op
    ticks[n].level = level
    ticks[n].flags = flags
    ticks[n].price = price
    ticks[n].size = size
    ticks[n].venue = venue
    ticks[n].spare = 0
    ticks[n].t_exchange_ns = t_exchange
    return 1


@kernel(
    types.int64(
        types.uint8[::1], types.int64, types.int64, types.int64[::1], types.int64, types.float64[::1],
        types.int64[::1], rec(TICK), types.int64, types.int64[::1],
    )
)  # fmt: skip
def decode(buf, start, end, lines, t_socket, ten, fields, ticks, n, out):  # type: ignore[no-untyped-def]
    """Walk the frames of ``buf[start:end]``, writing ticks from ``ticks[n]`` on. Returns why it stopped.

    ``out``: 0 offset after the last frame taken, 1 ticks in all, 2 frames taken, 3 and 4 the frame left to the library
    (with its length prefix; it counts as taken).
    """
    at = start
    frames = 0
    why = DONE
    while True:
        if end - at < 4:
            break
        length = (
            (np.int64(buf[at]) << 24)
            | (np.int64(buf[at + 1]) << 16)
            | (np.int64(buf[at + 2]) << 8)
            | np.int64(buf[at + 3])
        )
        if length < 1 or length > MAX_FRAME:
            why = BAD
            break
        stop = at + 4 + length
        if stop > end:
            break
        if n >= ticks.shape[0]:
            why = FULL
            break
        got = decode_frame(buf, at + 4, stop, lines, t_socket, ten, fields, ticks, n)
        frames += 1
        if got == _DECLINED:
            out[3] = at
            out[4] = stop
            at = stop
            why = COLD
            break
        n += got
        at = stop
    out[0] = at
    out[1] = n
    out[2] = frames
    return why


def venue_of(name: str) -> int:
    """Venue hash of a name, as in ``venue_hash``."""
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    return h if name else 0


def _float(text: str) -> float:
    return float(text) if text else 0.0


def decode_fields(
    fields: Sequence[str], lines: npt.NDArray[np.int64], t_socket_ns: int, ticks: npt.NDArray[np.void], n: int
) -> int:
    """The same for one hot message as text. Returns ticks written (0 or 1). Raises ValueError for a malformed one."""
    message = int(fields[0])
    slot = int(fields[1 if message == 99 else 2]) - REQ_BASE
    if not 0 <= slot < len(lines) or lines[slot] < 0 or n >= len(ticks):
        return 0
    line, symbol = int(lines[slot]) >> 16, int(lines[slot]) & 0xFFFF
    kind = side = op = level = flags = venue = t_exchange = 0
    price = size = math.nan
    if message in (12, 13):
        at = 5 if message == 13 else 4
        level, op, side = int(fields[3]), int(fields[at]), int(fields[at + 1])
        price, size = float(fields[at + 2]), float(fields[at + 3])
        if line != LINE_DEPTH:
            return 0
        if not (math.isfinite(price) and math.isfinite(size) and op in (0, 1, 2) and side in (0, 1)):
            raise ValueError(f"depth message with op {op}, side {side}, price {price}, size {size}")
        kind, level = _KIND_DEPTH, level if 0 <= level <= 255 else 255
        if message == 13:
            venue = venue_of(fields[4])
            flags = int(len(fields) > 9 and int(fields[9] or 0) != 0)
    elif message == 99:
        if len(fields) != 9:
            raise ValueError(f"{len(fields)} fields, expected 9")
        int(fields[6])
        if line != LINE_PRINTS or int(fields[2]) not in (1, 2):
            return 0
        kind, price, size = _KIND_TRADE, float(fields[4]), float(fields[5])
        t_exchange, venue = int(fields[3]) * 1_000_000_000, venue_of(fields[7])
    elif message == 1:
        if len(fields) != 7:
            raise ValueError(f"{len(fields)} fields, expected 7")
        if not fields[4]:
            return 0
        level, price, size = int(fields[3]), float(fields[4]), _float(fields[5])
        if line == LINE_INDEX and level == 4:
            kind = _KIND_INDEX
        elif line != LINE_INDEX and level in _PRICE_TYPES:
            kind = _KIND_QUOTE_PRICE
        price = math.nan if price < 0.0 else price
    elif message == 2:
        level, size = int(fields[3]), _float(fields[4])
        kind = _KIND_QUOTE_SIZE if line != LINE_INDEX and level in _SIZE_TYPES else 0
    if kind == 0:
        return 0
    ticks[n] = (0, t_socket_ns, 0, symbol, kind, side, op, level, flags, price, size, venue, 0, t_exchange)
    return 1


class FrameDecoder:
    """Scratch space and tables around ``decode``."""

    def __init__(self) -> None:
        self.lines: npt.NDArray[np.int64] = np.full(SLOTS, -1, np.int64)
        self.out: npt.NDArray[np.int64] = np.zeros(5, np.int64)
        self._fields: npt.NDArray[np.int64] = np.zeros(_MAX_FIELDS + 2, np.int64)
        self._next = 0

    @property
    def scratch(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Scratch space for fields and the powers of ten, for a kernel that decodes by itself."""
        return self._fields, _TEN

    def open_line(self, symbol: int, line: int) -> int:
        """Allot a request id for a subscription."""
        while self.lines[self._next] >= 0:
            self._next = (self._next + 1) % SLOTS
        slot = self._next
        self._next = (slot + 1) % SLOTS
        self.lines[slot] = line << 16 | symbol
        return REQ_BASE + slot

    def close_line(self, req_id: int) -> None:
        """Drop whatever still comes for this request."""
        self.lines[req_id - REQ_BASE] = -1

    def close_all(self) -> None:
        self.lines[:] = -1

    def line_of(self, req_id: int) -> tuple[int, int]:
        """(line, symbol) of a request id, (0, -1) if it is none of ours."""
        slot = req_id - REQ_BASE
        if not 0 <= slot < SLOTS or self.lines[slot] < 0:
            return 0, -1
        return int(self.lines[slot]) >> 16, int(self.lines[slot]) & 0xFFFF

    def run(
        self, buf: npt.NDArray[np.uint8], start: int, end: int, t_socket_ns: int, ticks: npt.NDArray[np.void], n: int
    ) -> int:
        """``decode`` with this table; results in ``out``."""
        return int(decode(buf, start, end, self.lines, t_socket_ns, _TEN, self._fields, ticks, n, self.out))
