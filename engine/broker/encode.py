"""placeOrder from a template: what does not change is built once by the library, the rest is written by compiled code.

A template is learnt, not known: the library encodes the same order several times, each time with one value changed, and
the field that differs is the place of that value. So one code serves every server version and both libraries, and a
library that encodes differently from what is expected here gets no template: its own encoder then goes on being used.

``encode_order`` declines (returns -1) what it does not write exactly as Python does: quantities that are not whole or
above 1e9, prices outside 0.001 to 1e9 or with more than 15 digits. Its bytes equal the library's for everything else.
"""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shm.jit import kernel, rec
from numba import types

DECLINED = -1
FRAME_BYTES = 1024
MAX_PARTS = 24

STATIC, ORDER_ID, ACTION, QTY, ORDER_TYPE, PRICE, TIF, REF, OUTSIDE = range(9)
MKT, LMT = 1, 2
"""``OrderType`` codes."""
TIFS = ("DAY", "DAY", "IOC", "GTC")
"""Texts by ``TimeInForce`` code; 0 is sent as DAY: an empty one makes the gateway apply a preset (10349)."""

TEMPLATE = np.dtype(
    [
        ("parts", "<i8"),  # 0: no template, the library encodes
        ("kind", "<i8", (MAX_PARTS,)),
        ("start", "<i8", (MAX_PARTS,)),  # of a static part in ``text``
        ("end", "<i8", (MAX_PARTS,)),
        ("text", "u1", (FRAME_BYTES,)),
    ]
)
"""Alternating static and variable parts of one symbol's placeOrder."""

_OUT = types.uint8[::1]
_i8, _f8 = types.int64, types.float64
_LONGEST = 160
"""Bytes that the variable parts can take at most, with the length prefix."""


@kernel(_i8(_OUT, _i8, _i8))
def write_int(out, at, value):  # type: ignore[no-untyped-def]
    """Decimal digits of ``value`` >= 0 at ``out[at:]``; returns the end."""
    digits = 1
    rest = value
    while rest >= 10:
        rest //= 10
        digits += 1
    end = at + digits
    for i in range(digits):
        out[end - 1 - i] = 48 + value % 10
        value //= 10
    return end


@kernel(_i8(_OUT, _i8, _i8))
def write_hex(out, at, value):  # type: ignore[no-untyped-def]
    """Lower-case hexadecimal digits of ``value`` >= 0; returns the end."""
    digits = 1
    rest = value >> 4
    while rest > 0:
        rest >>= 4
        digits += 1
    end = at + digits
    for i in range(digits):
        d = value & 15
        out[end - 1 - i] = 48 + d if d < 10 else 87 + d
        value >>= 4
    return end


@kernel(_i8(_OUT, _i8, _f8))
def write_price(out, at, price):  # type: ignore[no-untyped-def]
    """The shortest decimal text that reads back as ``price``, as Python's ``str`` writes it; returns the end, or -1.

    With at most 15 digits, m / 10^d is correctly rounded, so the smallest d for which it gives ``price`` is the
    shortest text.
    """
    if not (0.001 <= price < 1e9):
        return DECLINED
    scale = 1.0
    for decimals in range(10):
        m = np.floor(price * scale + 0.5)
        if m >= 1e15:
            return DECLINED
        if m / scale == price:
            whole = np.int64(m) // np.int64(scale)
            part = np.int64(m) % np.int64(scale)
            at = write_int(out, at, whole)
            out[at] = 46
            at += 1
            if decimals == 0:
                out[at] = 48
                return at + 1
            for i in range(decimals - 1, -1, -1):
                out[at + i] = 48 + part % 10
                part //= 10
            return at + decimals
        scale *= 10.0
    return DECLINED


@kernel(_i8(rec(TEMPLATE), _i8, _OUT, _i8, _i8, _i8, _f8, _i8, _f8, _i8, _i8, _i8))
def encode_order(  # type: ignore[no-untyped-def]
    templates, s, out, at, order_id, side, qty, order_type, price, tif, intent_id, outside
):
    """The frame of one order at ``out[at:]``, length prefix included; returns its end, or DECLINED."""
    t = templates[s]
    parts = t.parts
    if parts == 0 or order_id <= 0 or intent_id < 0:
        return DECLINED
    if not (1.0 <= qty <= 1e9) or qty != np.floor(qty) or (order_type != MKT and order_type != LMT):
        return DECLINED
    if out.shape[0] - at < FRAME_BYTES + _LONGEST:
        return DECLINED
    begin = at
    at += 4
    for p in range(parts):
        kind = t["kind"][p]
        if kind == STATIC:
            for i in range(t["start"][p], t["end"][p]):
                out[at] = t["text"][i]
                at += 1
        elif kind == ORDER_ID:
            at = write_int(out, at, order_id)
        elif kind == ACTION:
            if side > 0:
                out[at], out[at + 1], out[at + 2] = 66, 85, 89
                at += 3
            else:
                out[at], out[at + 1], out[at + 2], out[at + 3] = 83, 69, 76, 76
                at += 4
        elif kind == QTY:
            at = write_int(out, at, np.int64(qty))
        elif kind == ORDER_TYPE:
            if order_type == MKT:
                out[at], out[at + 1], out[at + 2] = 77, 75, 84
            else:
                out[at], out[at + 1], out[at + 2] = 76, 77, 84
            at += 3
        elif kind == PRICE:
            if order_type == LMT:
                at = write_price(out, at, price)
                if at < 0:
                    return DECLINED
        elif kind == TIF:
            if tif == 2:
                out[at], out[at + 1], out[at + 2] = 73, 79, 67
            elif tif == 3:
                out[at], out[at + 1], out[at + 2] = 71, 84, 67
            else:
                out[at], out[at + 1], out[at + 2] = 68, 65, 89
            at += 3
        elif kind == REF:
            out[at], out[at + 1], out[at + 2] = 76, 50, 58
            at = write_hex(out, at + 3, intent_id)
        else:
            out[at] = 49 if outside != 0 and order_type == LMT else 48
            at += 1
    length = at - begin - 4
    out[begin] = (length >> 24) & 255
    out[begin + 1] = (length >> 16) & 255
    out[begin + 2] = (length >> 8) & 255
    out[begin + 3] = length & 255
    return at


_BASE = (7_000_001, 1, 7_000_002.0, LMT, 7_003.25, 1, 0x7004, 0)
_CHANGED = {
    ORDER_ID: (7_000_011, *_BASE[1:]),
    ACTION: (_BASE[0], -1, *_BASE[2:]),
    QTY: (*_BASE[:2], 7_000_012.0, *_BASE[3:]),
    PRICE: (*_BASE[:4], 7_013.5, *_BASE[5:]),
    TIF: (*_BASE[:5], 2, *_BASE[6:]),
    REF: (*_BASE[:6], 0x7014, _BASE[7]),
    OUTSIDE: (*_BASE[:7], 1),
}
_MARKET = (*_BASE[:3], MKT, math.nan, *_BASE[5:])
Encode = Callable[[int, int, float, int, float, int, int, int], bytes]
"""The library's encoder: order id, side, quantity, type, limit, tif, intent id, outside -> a frame."""


def learn(templates: npt.NDArray[np.void], symbol: int, encode: Encode) -> bool:
    """Fill ``templates[symbol]`` from the library's own encoder. False, and no template, if it can't be followed."""
    templates[symbol]["parts"] = 0
    base = encode(*_BASE)[4:].split(b"\0")
    places: dict[int, int] = {}
    for kind, values in _CHANGED.items():
        places.update(dict.fromkeys(_differences(base, encode(*values)[4:].split(b"\0")), kind))
    market = _differences(base, encode(*_MARKET)[4:].split(b"\0"))
    places.update(dict.fromkeys((i for i in market if i not in places), ORDER_TYPE))
    if sorted(places.values()) != sorted((ORDER_ID, ACTION, QTY, ORDER_TYPE, PRICE, TIF, REF, OUTSIDE)):
        return False
    parts: list[tuple[int, bytes]] = []
    text = b""
    for i, field in enumerate(base[:-1]):
        if i in places:
            parts += [(STATIC, text), (places[i], b"")]
            text = b"\0"
        else:
            text += field + b"\0"
    parts.append((STATIC, text))
    if len(parts) > MAX_PARTS or sum(len(t) for _, t in parts) > FRAME_BYTES - _LONGEST:
        return False
    record = np.zeros(1, TEMPLATE)
    at = 0
    for p, (kind, static) in enumerate(parts):
        record["kind"][0, p], record["start"][0, p], record["end"][0, p] = kind, at, at + len(static)
        record["text"][0, at : at + len(static)] = np.frombuffer(static, np.uint8)
        at += len(static)
    record["parts"] = len(parts)
    templates[symbol] = record[0]
    out = np.zeros(2 * FRAME_BYTES, np.uint8)
    for values in (_BASE, *_CHANGED.values(), _MARKET):
        end = int(encode_order(templates, symbol, out, 0, *values))
        if end < 0 or out[:end].tobytes() != encode(*values):
            templates[symbol]["parts"] = 0
            return False
    return True


def _differences(a: list[bytes], b: list[bytes]) -> list[int]:
    """Fields in which two messages differ; all of them if they have not equally many."""
    if len(a) != len(b):
        return list(range(len(a)))
    return [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
