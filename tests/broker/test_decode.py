"""Compiled decoding against the same in plain Python, and against the library's own decoder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.broker import decode as d
from engine.broker.ibapi_compat import Client
from shm.layouts import TICK


def frame(*fields: object) -> bytes:
    body = "".join(f"{f}\0" for f in fields).encode()
    return len(body).to_bytes(4, "big") + body


def table() -> tuple[d.FrameDecoder, dict[str, int]]:
    frames = d.FrameDecoder()
    ids = {
        "depth": frames.open_line(3, d.LINE_DEPTH), "quotes": frames.open_line(4, d.LINE_QUOTES),
        "index": frames.open_line(8, d.LINE_INDEX), "prints": frames.open_line(5, d.LINE_PRINTS),
    }  # fmt: skip
    return frames, ids


def run(frames: d.FrameDecoder, data: bytes, capacity: int = 64) -> tuple[int, Any]:
    ticks = np.zeros(capacity, TICK)
    why = frames.run(np.frombuffer(bytearray(data), np.uint8), 0, len(data), 99, ticks, 0)
    return why, ticks[: int(frames.out[1])]


PRICES = st.one_of(
    st.decimals(0, 100_000, places=2).map(str),
    st.decimals(0, 9_999, places=4).map(str),
    st.integers(0, 10**7).map(str),
    st.sampled_from(["", "-1.0", "-1", "150.", ".5", "1E-5", "1.5E7", "NaN", "abc", "12345678901234567", "0"]),
)  # fmt: skip
SMALL = st.integers(-2, 300).map(str)


@st.composite
def hot_messages(draw: st.DrawFn) -> list[str]:
    _, ids = table()
    req = str(draw(st.sampled_from([*ids.values(), d.REQ_BASE + 9, 5])))
    kind = draw(st.sampled_from(["1", "2", "12", "13", "99"]))
    price, size = draw(PRICES), draw(PRICES)
    small = draw(SMALL)
    op, side = draw(st.sampled_from("0123")), draw(st.sampled_from("012"))
    venue = draw(st.sampled_from(["NASDAQ", "", "ÄRCA"]))
    return {
        "1": ["1", "6", req, draw(st.sampled_from(["1", "2", "4", "9", "14"])), price, size, "1"],
        "2": ["2", "6", req, draw(st.sampled_from(["0", "3", "5", "8", "7"])), size],
        "12": ["12", "1", req, small, op, side, price, size],
        "13": ["13", "1", req, small, venue, op, side, price, size, "1"],
        "99": ["99", req, draw(st.sampled_from("1234")), "1700000000", price, size, "0", venue, "F"],
    }[kind]


def same(a: np.void, b: np.void) -> bool:
    return all(x == y or (isinstance(x, float) and math.isnan(x) and math.isnan(y)) for x, y in zip(a, b, strict=True))


@settings(max_examples=400, deadline=None)
@given(hot_messages())
def test_compiled_and_plain_decoding_agree_or_the_compiled_one_declines(fields: list[str]) -> None:
    frames, _ = table()
    why, ticks = run(frames, frame(*fields))
    plain = np.zeros(1, TICK)
    try:
        count = d.decode_fields(fields, frames.lines, 99, plain, 0)
    except ValueError:
        assert len(ticks) == 0, "what plain decoding calls malformed must not become a tick"
        return
    if why == d.COLD:
        assert len(ticks) == 0
        return
    assert len(ticks) == count
    if count:
        assert same(ticks[0], plain[0])


@settings(max_examples=40, deadline=None)
@given(hot_messages())
def test_compiled_and_interpreted_kernels_agree(fields: list[str]) -> None:
    frames, _ = table()
    data = np.frombuffer(bytearray(frame(*fields)), np.uint8)
    compiled, plain = np.zeros(2, TICK), np.zeros(2, TICK).view(np.recarray)
    offsets = np.zeros(20, np.int64)
    a = d.decode_frame(data, 4, len(data), frames.lines, 99, d._TEN, offsets, compiled, 0)
    b = d.decode_frame.py_func(data, 4, len(data), frames.lines, 99, d._TEN, offsets, plain, 0)
    assert a == b
    assert same(compiled[0], np.asarray(plain)[0])


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.decimals(-(10**6), 10**6, places=6), st.decimals(0, 10**9, places=2)))
def test_numbers_are_parsed_to_the_last_bit(number: object) -> None:
    raw = np.frombuffer(bytearray(str(number).encode()), np.uint8)
    value = d.parse_number(raw, 0, len(raw), d._TEN)
    assert value == float(str(number)) or math.isnan(value)


class _Oracle:
    """Collects what the library's decoder says about depth messages."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def updateMktDepthL2(self, *values: Any) -> None:
        self.rows.append(values)


def test_the_librarys_decoder_reads_the_same_depth() -> None:
    frames, ids = table()
    oracle = _Oracle()
    decoder = Client(oracle).decoder
    decoder.serverVersion = 176
    rows = [(k % 10, "NASDAQ", k % 3, k % 2, round(100 + k * 0.01, 2), 100 * k, 1) for k in range(50)]
    data = b"".join(frame(13, 1, ids["depth"], *row) for row in rows)
    _, ticks = run(frames, data)
    for row in rows:
        decoder.interpret(["13", "1", str(ids["depth"]), *map(str, row)])
    ours = [(int(t["level"]), int(t["op"]), int(t["side"]), float(t["price"]), float(t["size"])) for t in ticks]
    theirs = [(r[1], r[3], r[4], r[5], r[6]) for r in oracle.rows]
    assert ours == theirs


def test_order_of_hot_and_other_frames_is_kept_and_partial_frames_wait() -> None:
    frames, ids = table()
    depth = frame(13, 1, ids["depth"], 0, "X", 0, 1, "10.5", 100, 1)
    other = frame(4, 2, ids["depth"], 317, "reset", "")
    data = depth + other + depth + depth[:7]
    buffer, ticks = np.frombuffer(bytearray(data), np.uint8), np.zeros(8, TICK)
    assert frames.run(buffer, 0, len(data), 1, ticks, 0) == d.COLD
    assert (int(frames.out[1]), int(frames.out[3]), int(frames.out[4])) == (1, len(depth), len(depth + other))
    assert frames.run(buffer, int(frames.out[0]), len(data), 1, ticks, 1) == d.DONE
    assert (int(frames.out[0]), int(frames.out[1])) == (len(data) - 7, 2)


def test_full_tick_buffer_stops_before_a_frame_is_lost() -> None:
    frames, ids = table()
    one = frame(2, 6, ids["quotes"], 0, 100)
    why, ticks = run(frames, one * 5, capacity=3)
    assert (why, len(ticks), int(frames.out[0])) == (d.FULL, 3, 3 * len(one))


@pytest.mark.parametrize("length", [0, d.MAX_FRAME + 1, 0xFFFFFFFF])
def test_impossible_lengths_are_called_bad(length: int) -> None:
    frames, _ = table()
    assert run(frames, length.to_bytes(4, "big") + b"1\0")[0] == d.BAD


def test_messages_of_a_cancelled_subscription_are_dropped() -> None:
    frames, ids = table()
    frames.close_line(ids["depth"])
    why, ticks = run(frames, frame(13, 1, ids["depth"], 0, "X", 0, 1, "10.5", 100, 1))
    assert (why, len(ticks)) == (d.DONE, 0)
    assert frames.open_line(1, d.LINE_DEPTH) != ids["depth"], "a new subscription gets a new id"
