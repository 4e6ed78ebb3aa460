"""One ring on its way to segments: polls, fills blocks, keeps count of what was lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.store.blocks import DTYPES, BlockKind, Header, Records, block_records
from engine.store.sinks import TickSink
from shm.layouts import SIGNAL_BAR
from shm.ring import RingReader

SIGNAL_EVERY_NS = 1_000_000_000
"""Signals that close a bar are all kept, others at most one per symbol in this time: ticks reproduce the rest."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What ties a block's monotonic times to the world. ``epoch``: incarnation of the ring."""

    epoch: int
    wall_offset_ns: int
    boot: int


class TickStream:
    """Fills one block at a time from a ring and hands it to the sink."""

    def __init__(self, name: str, kind: BlockKind, reader: RingReader, anchor: Anchor, sink: TickSink) -> None:
        self.name = name
        self.kind = kind
        self.reader = reader
        self.lost = 0
        """Records found lost by the last ``take``."""
        self._anchor = anchor
        self._sink = sink
        self._fill = np.zeros(block_records(kind), DTYPES[kind])
        self._count = 0
        self._first = 0
        self._next = reader.position
        self._pending_lost = 0
        self._since_ns = 0
        self._last_kept_ns = np.zeros(1 << 16, np.int64) if kind == BlockKind.SIGNAL else np.zeros(0, np.int64)

    def take(self, date: int, now_ns: int) -> int:
        """Move one batch of the ring into the block; returns how many records were read."""
        records = self.reader.poll()
        self.lost = self.reader.last_gap
        if self.lost:  # the block before the gap ends here: records of one block follow each other
            self.hand_over(date)
            self._pending_lost += self.lost
            self._next = self.reader.position - len(records)
        kept = self._sampled(records) if self.kind == BlockKind.SIGNAL else records
        at = 0
        while at < len(kept):
            if self._count == len(self._fill):
                self.hand_over(date)
            part = kept[at : at + len(self._fill) - self._count]
            if not self._count:
                self._first, self._since_ns = int(part[0]["sequence"]), now_ns
            self._fill[self._count : self._count + len(part)] = part
            self._count += len(part)
            self._next = int(part[-1]["sequence"]) + 1
            at += len(part)
        if self._count:
            self._next = self.reader.position
        return len(records)

    def _sampled(self, signals: Records) -> Records:
        keep = (signals["flags"] & SIGNAL_BAR) != 0
        for i in np.flatnonzero(~keep):
            symbol, at = int(signals[i]["symbol"]), int(signals[i]["t_signal_ns"])
            if at - self._last_kept_ns[symbol] >= SIGNAL_EVERY_NS:
                self._last_kept_ns[symbol] = at
                keep[i] = True
        kept: Records = signals[keep]
        return kept

    def age_ns(self, now_ns: int) -> int:
        """How long the oldest record of the block has waited, 0 if there is none."""
        return now_ns - self._since_ns if self._count else 0

    def hand_over(self, date: int) -> None:
        """Give the block to the sink, also an empty one that has a loss to report."""
        if not self._count and not self._pending_lost:
            return
        a = self._anchor
        first = self._first if self._count else self._next
        header = Header(self.kind, first, self._next, a.epoch, a.wall_offset_ns, self._pending_lost, a.boot)
        self._sink.offer(self.name, date, header, self._fill[: self._count].copy())
        self._count = self._pending_lost = 0
