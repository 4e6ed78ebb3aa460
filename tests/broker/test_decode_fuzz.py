"""The frame decoder under mutated, split and coalesced input, with the library's own decoder as the oracle."""

from __future__ import annotations

import contextlib
import math
import random
import socket
from typing import Any

import fuzz_kernels as fuzz
import numpy as np
import pytest

from engine.broker import decode as d
from engine.broker.ib_link import RECEIVE_BYTES, IbLink
from engine.broker.ibapi_compat import Client
from engine.broker.link import LinkPhase
from engine.broker.news import LinkDown
from engine.domain.codes import TickKind
from engine.domain.instruments import Instrument
from shm.layouts import TICK

SYMBOLS = 9
PLAIN_FRAMES, ALL_FRAMES = 300_000, 10_000_000


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


def seeds(ids: dict[str, int]) -> list[bytes]:
    """Bodies of well-formed messages, hot and cold."""
    good = [
        frame(13, 1, ids["depth"], 0, "NASDAQ", 0, 1, "150.25", 300, 1),
        frame(13, 1, ids["depth"], 9, "ARCA", 2, 0, "0", 0, 0),
        frame(12, 1, ids["depth"], 3, 1, 0, "99.5", "12.5"),
        frame(1, 6, ids["quotes"], 1, "101.01", 200, 1),
        frame(1, 6, ids["quotes"], 2, "-1", 0, 1),
        frame(1, 6, ids["index"], 4, "38123.45", 0, 0),
        frame(2, 6, ids["quotes"], 0, 700),
        frame(99, ids["prints"], 2, 1700000000, "150.26", 100, 0, "ISLAND", "F"),
        frame(46, 6, ids["quotes"], 45, "1700000000"),
        frame(4, 2, ids["depth"], 317, "Market depth data has been RESET", ""),
        frame(3, 7, "Submitted", 0, 100, 0, 123, 0, 0, 11, "", 0),
        frame(13, 1, ids["depth"], 0, "X", 0, 1, "NaN", "inf", 1),
    ]  # fmt: skip
    return [g[4:] for g in good]


def campaign(frames_wanted: int, seed: int) -> np.ndarray[Any, Any]:
    frames, ids = table()
    corpus, starts, ends = np.zeros(1 << 20, np.uint8), np.zeros(4096, np.int64), np.zeros(4096, np.int64)
    at = 0
    for n, body in enumerate(seeds(ids)):
        corpus[at : at + len(body)] = np.frombuffer(body, np.uint8)
        starts[n], ends[n] = at, at + len(body)
        at += len(body)
    assert len(seeds(ids)) == fuzz.SEEDS
    totals = np.zeros(8, np.int64)
    fields, ten = frames.scratch
    fuzz.campaign(
        corpus, starts, ends, len(seeds(ids)), np.zeros(1 << 16, np.uint8), frames.lines, ten, fields,
        np.zeros(512, TICK), frames.out, np.array([seed], np.uint64), np.zeros(fuzz.SIGNATURES, np.uint8), totals,
        frames_wanted, SYMBOLS,
    )  # fmt: skip
    return totals


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_frames_give_sound_ticks_or_are_left_alone(seed: int) -> None:
    judge(campaign(PLAIN_FRAMES, seed), PLAIN_FRAMES)


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_ten_million_mutated_frames_give_sound_ticks_or_are_left_alone() -> None:
    judge(campaign(ALL_FRAMES, 20_240_102), ALL_FRAMES)


def judge(totals: np.ndarray[Any, Any], least: int) -> None:
    assert totals[fuzz.BROKEN] == 0
    assert totals[fuzz.FRAMES] >= least
    assert totals[fuzz.CORPUS] > 40, "the corpus did not grow: the mutations reach nothing new"
    assert min(totals[fuzz.TICKS_OUT], totals[fuzz.COLDS]) > least // 20
    assert totals[fuzz.BADS] > 0


class Oracle:
    """What the library's decoder makes of a message."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def updateMktDepthL2(
        self, req: int, row: int, _: str, op: int, side: int, price: float, size: float, *s: Any
    ) -> None:
        self.said.append((req, row, op, side, price, size))

    def updateMktDepth(self, req: int, row: int, op: int, side: int, price: float, size: float) -> None:
        self.said.append((req, row, op, side, price, size))

    def priceSizeTick(self, req: int, kind: int, price: float, size: float) -> None:
        self.said.append((req, kind, price, size))

    def tickSize(self, req: int, kind: int, size: float) -> None:
        self.said.append((req, kind, size))

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def mutated(rnd: random.Random, fields: list[str]) -> list[str]:
    fields = list(fields)
    for _ in range(rnd.randint(0, 2)):
        k = rnd.randrange(1, len(fields))
        word = rnd.choice(
            ["", "NaN", "inf", "-inf", "1e9", "1E400", "-5", "999999999999", "0x1", "７", " 3", "+2", "1_0"]
        )
        fields[k] = rnd.choice([word, fields[k] + "0", fields[k][:-1], "-" + fields[k]])
    if rnd.random() < 0.1:
        del fields[rnd.randrange(1, len(fields))]
    return fields


def test_no_tick_says_what_the_librarys_decoder_does_not_say() -> None:
    """Where the library reads a message otherwise, or not at all, there is no tick of it."""
    rnd = random.Random(5)
    frames, ids = table()
    oracle = Oracle()
    decoder = Client(oracle).decoder
    decoder.serverVersion = 176
    decoder.logger.disabled = True
    messages = [body.decode().split("\0")[:-1] for body in seeds(ids)]
    ticks = np.zeros(4, TICK)
    agreed = 0
    try:
        for _ in range(6_000):
            fields = mutated(rnd, rnd.choice([m for m in messages if m[0] in ("1", "2", "12", "13")]))
            data = frame(*fields)
            why = frames.run(np.frombuffer(bytearray(data), np.uint8), 0, len(data), 9, ticks, 0)
            if why != d.DONE or not frames.out[1]:
                continue
            t = ticks[0]
            oracle.said.clear()
            decoder.interpret(fields)
            assert oracle.said, f"a tick of {fields}, of which the library makes nothing"
            said = oracle.said[-1]
            if t["kind"] == TickKind.DEPTH:
                row = said[1] if 0 <= said[1] <= 255 else 255
                assert (row, *said[2:]) == (t["level"], t["op"], t["side"], t["price"], t["size"]), fields
            elif t["kind"] == TickKind.QUOTE_SIZE:
                assert said[1:] == (t["level"], t["size"]), fields
            else:
                assert said[1] == t["level"], fields
                assert said[2] == t["price"] or (said[2] < 0 and math.isnan(t["price"])), fields
            agreed += 1
    finally:
        decoder.logger.disabled = False
    assert agreed > 1_500


class Wire:
    """A link in the middle of a session, with the other end of its socket in hand."""

    def __init__(self) -> None:
        self.link = IbLink("127.0.0.1", 1, 7, (Instrument(0, "AAPL", 265598),), lambda: 5)
        ours, self.far = socket.socketpair()
        ours.setblocking(False)
        self.link._sock, self.link.phase = ours, LinkPhase.OPEN
        self.link._client._serverVersion, self.link._client.connState = 176, self.link._client.CONNECTED
        self.depth = self.link._frames.open_line(0, d.LINE_DEPTH)

    def send(self, data: bytes) -> list[np.void]:
        self.far.sendall(data)
        ticks: list[np.void] = []
        while self.link.poll(5) or self.link.tick_count:
            ticks.extend(self.link.take_ticks().copy())
        return ticks

    def row(self, level: int = 0, price: object = "10.5", size: object = 100) -> bytes:
        return frame(13, 1, self.depth, level, "X", 1, 1, price, size, 1)

    def why_down(self) -> str:
        return next(n.reason for n in self.link.news if isinstance(n, LinkDown))

    def close(self) -> None:
        self.link.disconnect("over")
        self.far.close()


@pytest.fixture
def wire() -> Any:
    made = Wire()
    yield made
    made.close()


def test_however_the_stream_is_cut_the_ticks_are_the_same(wire: Wire) -> None:
    data = b"".join(wire.row(k % 10, f"{10 + k / 100:.2f}", k) for k in range(30)) + frame(49, 1, 1700000000)
    data += b"".join(wire.row(k) for k in range(5))
    whole = [t.tobytes() for t in wire.send(data)]
    assert len(whole) == 35
    rnd = random.Random(3)
    for _ in range(20):
        cuts = sorted(rnd.sample(range(1, len(data)), rnd.randint(1, 40)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert [t.tobytes() for piece in pieces for t in wire.send(piece)] == whole
    for k in range(len(data) - 200, len(data)):
        assert [t.tobytes() for piece in (data[:k], data[k:]) for t in wire.send(piece)] == whole


@pytest.mark.parametrize("length", [0, 2**31, 2**32 - 1])
def test_an_impossible_length_ends_the_session_and_says_so(wire: Wire, length: int) -> None:
    wire.send(wire.row() + length.to_bytes(4, "big") + b"1\0")
    assert wire.link.bad_frames == 1
    assert wire.link.phase == LinkPhase.CLOSED
    assert "impossible length" in wire.why_down()


def test_a_frame_longer_than_the_buffer_ends_the_session_and_says_so(wire: Wire) -> None:
    wire.far.setblocking(False)
    left = (RECEIVE_BYTES + 10).to_bytes(4, "big") + bytes(RECEIVE_BYTES + 10)
    while left and wire.link.phase == LinkPhase.OPEN:
        with contextlib.suppress(OSError):
            left = left[wire.far.send(left) :]
        wire.link.poll(5)
    assert wire.link.bad_frames == 1
    assert f"longer than {RECEIVE_BYTES}" in wire.why_down()


def test_a_message_cut_by_a_disconnect_leaves_nothing_behind(wire: Wire) -> None:
    assert wire.send(wire.row()[:-5]) == []
    wire.far.close()
    wire.link.poll(5)
    assert wire.link.phase == LinkPhase.CLOSED
    assert wire.link.window == (0, 0)
    assert "closed the connection" in wire.why_down()


@pytest.mark.parametrize("price", ["NaN", "inf", "-inf", "1e999", "abc", ""])
def test_a_price_that_is_no_number_voids_the_book_is_counted_and_named(wire: Wire, price: str) -> None:
    ticks = wire.send(wire.row() + wire.row(1, price) + wire.row(2))
    assert [int(t["kind"]) for t in ticks] == [TickKind.DEPTH, TickKind.DEPTH_RESET, TickKind.DEPTH]
    assert wire.link.bad_frames == 1
    assert 0 in wire.link.garbled
    assert wire.link.garbled[0]


@pytest.mark.parametrize("at", ["4", "5", "6"])
def test_a_depth_message_with_an_impossible_operation_or_side_voids_the_book(wire: Wire, at: str) -> None:
    fields: list[object] = [13, 1, wire.depth, 0, "X", 1, 1, "10.5", 100, 1]
    fields[int(at)] = 7 if at != "4" else "X"
    ticks = wire.send(frame(*fields))
    assert [int(t["kind"]) for t in ticks] == [TickKind.DEPTH if at == "4" else TickKind.DEPTH_RESET]
