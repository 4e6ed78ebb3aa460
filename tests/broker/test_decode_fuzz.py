"""The frame decoder under mutated, split and coalesced input, with the library's own decoder as the oracle.

Every mutated frame is decoded in company and alone, and its numbers are read once more by the C library; what reaches
something new joins the corpus. The library's own decoder judges the whole corpus and a batch of every stretch.
``fuzz_corpus.txt`` keeps what was found; ``python tests/broker/test_decode_fuzz.py`` finds it anew.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import socket
from pathlib import Path
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
CORPUS = Path(__file__).with_name("fuzz_corpus.txt")
_PRICES, _SIZES = (1, 2, 4, 6, 7, 9), (0, 3, 5, 8)


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


class Campaign:
    """Mutation in compiled batches, guided by what was reached; and the library's word on part of every stretch."""

    def __init__(self, seed: int, bodies: list[bytes]) -> None:
        self.frames, self.ids = table()
        self.corpus = np.zeros(1 << 20, np.uint8)
        self.starts, self.ends = np.zeros(4096, np.int64), np.zeros(4096, np.int64)
        at = 0
        for n, body in enumerate(bodies):
            self.corpus[at : at + len(body)] = np.frombuffer(body, np.uint8)
            self.starts[n], self.ends[n] = at, at + len(body)
            at += len(body)
        self.count, self.totals = len(bodies), np.zeros(8, np.int64)
        self.buf, self.seen = np.zeros(1 << 16, np.uint8), np.zeros(fuzz.EDGES, np.uint8)
        self._seed, self._ticks, self._single = np.array([seed], np.uint64), np.zeros(512, TICK), np.zeros(1, TICK)
        self._alone = np.zeros(5, np.int64)
        for n in range(self.count):
            self.reach(bytes(self.corpus[self.starts[n] : self.ends[n]]))

    def reach(self, body: bytes) -> int:
        """Mark what a kept message reaches, so that only what is new joins the corpus. Returns how much was new."""
        data = np.frombuffer(bytearray(len(body).to_bytes(4, "big") + body), np.uint8)
        why = self.frames.run(data, 0, len(data), 7, self._single, 0)
        outcome = 2 if why == d.COLD else int(self.frames.out[1])
        return int(fuzz.covers(data, 4, len(data), outcome, self.seen))

    def run(self, frames: int) -> None:
        fields, ten = self.frames.scratch
        self.count = int(fuzz.campaign(
            self.corpus, self.starts, self.ends, self.count, self.buf, self.frames.lines, ten, fields, self._ticks,
            self.frames.out, self._single, self._alone, self._seed, self.seen, self.totals,
            int(self.totals[fuzz.FRAMES]) + frames, SYMBOLS,
        ))  # fmt: skip

    def found(self, since: int = 0) -> list[bytes]:
        return [bytes(self.corpus[self.starts[n] : self.ends[n]]) for n in range(since, self.count)]

    def batch(self) -> list[bytes]:
        """Bodies of the last batch, up to its first impossible length."""
        data, at, bodies = bytes(self.buf[: self.totals[fuzz.BATCH]]), 0, []
        while at + 4 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            if not 0 < length <= len(data) - at - 4:
                break
            bodies.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        return bodies


def fuzzed(frames: int, seed: int, stretches: int) -> None:
    seeded = seeds(table()[1])
    assert len(seeded) == fuzz.SEEDS
    c, library = Campaign(seed, seeded + kept()), Library()
    agreed = sum(library.judge(body) for body in c.found())
    for _ in range(stretches):
        before = c.count
        c.run(frames // stretches)
        assert c.totals[fuzz.BROKEN] == 0
        agreed += sum(library.judge(body) for body in c.found(before) + c.batch())
    t = c.totals
    assert t[fuzz.FRAMES] >= frames // stretches * stretches
    assert min(t[fuzz.TICKS_OUT], t[fuzz.COLDS]) > frames // 20
    assert t[fuzz.BADS] > 0
    assert agreed > stretches * 100


def kept() -> list[bytes]:
    """What earlier campaigns found: for everything that was ever reached, the message that reached it first."""
    return [bytes.fromhex(line) for line in CORPUS.read_text().split()]


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_frames_give_the_librarys_ticks_or_are_left_to_it(seed: int) -> None:
    fuzzed(PLAIN_FRAMES, seed, 3)


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_ten_million_mutated_frames_give_the_librarys_ticks_or_are_left_to_it() -> None:
    fuzzed(ALL_FRAMES, 20_240_102, 100)


def test_the_feedback_guides_from_the_well_formed_messages_alone() -> None:
    c = Campaign(3, seeds(table()[1]))
    reached = int(c.seen.sum())
    c.run(PLAIN_FRAMES)
    assert c.seen.sum() > 2 * reached
    assert c.count > 100


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

    def tickByTickAllLast(
        self, req: int, kind: int, seconds: int, price: float, size: float, _: Any, venue: str, __: str
    ) -> None:
        self.said.append((req, seconds, price, size, venue))

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Library:
    """The library's decoder as the judge of ours, message by message."""

    def __init__(self) -> None:
        self.frames, self.ids = table()
        self.oracle, self._ticks = Oracle(), np.zeros(4, TICK)
        self.decoder = Client(self.oracle).decoder
        self.decoder.serverVersion = 176
        self.decoder.logger = logging.getLogger("tests.fuzz")
        self.decoder.logger.disabled = True

    def judge(self, body: bytes) -> int:
        """1 if both make the same tick of it, 0 if ours makes none. Fails on a tick that the library does not say, and
        on one that it says, that somebody subscribed to, and that ours drops."""
        data = len(body).to_bytes(4, "big") + body
        why = self.frames.run(np.frombuffer(bytearray(data), np.uint8), 0, len(data), 9, self._ticks, 0)
        if why != d.DONE:
            return 0  # left to the library, which then says or refuses it itself
        assert self.frames.out[0] == len(data)
        fields = body.decode(errors="backslashreplace").split("\0")
        fields.pop()
        self.oracle.said.clear()
        self.decoder.interpret(fields)
        said = self.oracle.said[-1] if self.oracle.said else None
        if not self.frames.out[1]:
            assert said is None or not self._wanted(said), f"no tick of {fields}, of which the library says {said}"
            return 0
        assert said is not None, f"a tick of {fields}, of which the library makes nothing"
        t = self._ticks[0]
        if t["kind"] == TickKind.DEPTH:
            row = said[1] if 0 <= said[1] <= 255 else 255
            assert (row, *said[2:]) == (t["level"], t["op"], t["side"], t["price"], t["size"]), fields
        elif t["kind"] == TickKind.QUOTE_SIZE:
            assert said[1:] == (t["level"], t["size"]), fields
        elif t["kind"] == TickKind.TRADE:
            assert said[1:4] == (t["t_exchange_ns"] // 1_000_000_000, t["price"], t["size"]), fields
        else:
            assert said[1] == t["level"], fields
            assert said[2] == t["price"] or (said[2] < 0 and math.isnan(t["price"])), fields
        return 1

    def _wanted(self, said: tuple[Any, ...]) -> bool:
        """Whether what the library says belongs to a subscription of ours."""
        ids = self.ids
        kinds = {ids["quotes"]: {3: _SIZES, 4: _PRICES}, ids["index"]: {4: (4,)}}
        if len(said) == 6:
            return bool(said[0] == ids["depth"])
        if len(said) == 5:
            return bool(said[0] == ids["prints"])
        return said[1] in kinds.get(said[0], {}).get(len(said), ())


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
    rnd, library, ids = random.Random(5), Library(), table()[1]
    messages = [body.decode().split("\0")[:-1] for body in seeds(ids)]
    messages = [m for m in messages if m[0] in ("1", "2", "12", "13", "99")]
    agreed = sum(library.judge(frame(*mutated(rnd, rnd.choice(messages)))[4:]) for _ in range(6_000))
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


if __name__ == "__main__":
    found = Campaign(1, seeds(table()[1]))
    found.run(ALL_FRAMES)
    CORPUS.write_text("".join(f"{body.hex()}\n" for body in found.found(fuzz.SEEDS)))
