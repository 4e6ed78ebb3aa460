"""A rehearsal of the fused turn: the same compiled code from socket to socket, in a world of its own.

What the agents do in Python between two messages pushes the hot path out of the processor's caches: its instructions,
its branches, and the kernel's way of sending, which alone makes an order some 6 µs later. So a host that polls its core
anyway plays the turn once through when the agents have worked and nothing waits: a depth message comes in over a socket
pair of its own, and an order goes out over it. Every array that the turn writes is a copy, every cursor and ring a
private one. Only the order templates are the real ones, and nothing writes these.
"""

from __future__ import annotations

import math
import socket
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.broker.decode import LINE_DEPTH, REQ_BASE
from engine.domain.codes import Owner
from engine.market.layout import C_BAR_NS, C_NEXT_BAR
from engine.procs import hot_kernel as k
from engine.strategy.pace import BURST_AT, RATE, TOKENS
from shm.kernels import SLOTS
from shm.layouts import INTENT, LEASE, SIGNAL, TICK

Array = npt.NDArray[Any]
_RING = 64
"""Slots of each of its rings."""
_FOREVER = 1 << 62
_PLENTY = 1e12
_ROWS = 10
_KEPT = ("tick_size", "row_limit", "fair_bucket_ns", "fair_min_ns", "stale_ns")
"""What the market state of a symbol keeps from the real one."""
_SHARED = frozenset(("templates", "ten", "stops", "watch", "bells"))
"""Not copied: nothing writes them, or their number is 0 here."""


def depth_row(side: int, level: int, price: float, size: int, op: int) -> bytes:
    """A depth message (13) of the first line's request as a frame."""
    body = f"13\0001\0{REQ_BASE}\0{level}\0REHEARSE\0{op}\0{side}\0{price:.2f}\0{size}\0001\0".encode()
    return len(body).to_bytes(4, "big") + body


class Rehearsal:
    """``table`` and ``arrays`` are the real turn's, ``symbol`` one that may be traded. Raises OSError if there are no
    sockets for it."""

    def __init__(self, table: npt.NDArray[np.void], arrays: dict[str, Array], symbol: int) -> None:
        self._near, self._far = _pair()
        self.table = table.copy()
        self._symbol = symbol
        self.arrays = {name: a if name in _SHARED else a.copy() for name, a in arrays.items() if "ring" not in name}
        row = self.table[0]
        for name, dtype in (("ticks", TICK), ("signals", SIGNAL), ("orders", INTENT)):
            self.arrays[f"{name}_ring"] = np.zeros(SLOTS + _RING * dtype.itemsize // 8, np.int64)
            row[f"{name}_cap"] = _RING
        for name in ("ml_ticks_cursor", "algo_signals_cursor", "bridge_orders_cursor", "flight"):
            self.arrays[name] = np.zeros(2, np.int64)
        for name, array in self.arrays.items():
            row[name] = array.ctypes.data
        row["fd"] = self._near.fileno()
        for name in ("stops_n", "watch_n", "bells_n", "start", "end", "faults_seen"):
            row[name] = 0
        row["decides"] = row["sends"] = row["room"] = row["next_order"] = row["next_intent"] = 1
        self._set_up()
        ask, bid, insert, update = 0, 1, 0, 1
        rows = [(side, level) for level in range(_ROWS) for side in (ask, bid)]
        price = {ask: 100.01, bid: 100.0}
        self._play(
            b"".join(depth_row(s, n, price[s] + 0.01 * n * (1 if s == ask else -1), 500, insert) for s, n in rows)
        )
        self._frames = [np.frombuffer(depth_row(bid, 0, 100.0, size, update), np.uint8) for size in (500_000, 600_000)]
        self._reply = np.zeros(4096, np.uint8)
        self.count = 0

    def _set_up(self) -> None:
        """Everything so that the next heavy bid makes an order."""
        a, s = self.arrays, self._symbol
        state = a["state"]
        for i in range(len(state)):
            kept = [state[i][name] for name in _KEPT]
            state[i] = np.zeros((), state.dtype)
            for name, value in zip(_KEPT, kept, strict=True):
                state[i][name] = value
        state["session_open"], state["spread_median_bps"], state["gap_median_ns"] = 1, math.nan, math.nan
        state["stale_ns"] = _PLENTY
        a["control"][:] = 0
        a["control"][[C_NEXT_BAR, C_BAR_NS]] = _FOREVER
        a["lines"][:] = -1
        a["lines"][0] = LINE_DEPTH << 16 | s
        a["books"][:] = np.zeros((), a["books"].dtype)
        models = a["models"]
        models["valid"], models["warming"], models["states"], models["regime"] = 1, 0, 3, 0
        models["confidence"] = models["confidence_ema"] = 1.0
        cards = a["cards"]
        for name in ("qty", "held_qty", "working_buy_qty", "working_sell_qty", "orders"):
            cards[name] = 0
        cards["tick_size"], cards["tradable"], cards["clear"], cards["entries"] = 0.01, 1, 1, 1
        memory, parameters = a["memory"], a["parameters"]
        memory["opened_ns"], memory["entry_price"], memory["calm_until_ns"] = 0, math.nan, 0
        parameters["symbol_usd"] = parameters["gross_usd"] = parameters["daily_stop_usd"] = _PLENTY
        parameters["min_confidence"] = 0.0
        parameters["entry_gap_ns"] = parameters["next_entry_ns"] = parameters["cooldown_ns"] = 0
        a["situation"]["gross_usd"] = a["situation"]["day_pnl_usd"] = 0.0
        a["bucket"][[TOKENS, RATE, BURST_AT]] = _PLENTY
        a["filled"][:] = 0
        a["until"][:] = 0
        self._open_the_gate(a["facts"], a["account"])
        lease = np.zeros(1, LEASE)
        lease["owner"], lease["epoch"], lease["expires_ns"] = int(Owner.BRIDGE), 1, _FOREVER
        lease["version"] = 2  # written once
        words = lease.view(np.int64)
        a["lease_region"][SLOTS : SLOTS + len(words)] = words

    @staticmethod
    def _open_the_gate(facts: Array, account: Array) -> None:
        for name in ("qty", "working_buy", "working_sell", "active_buy", "active_sell", "last_ns", "halted", "blocked"):
            facts[name] = 0
        facts["repeat_buy_ns"] = facts["repeat_sell_ns"] = 0
        facts["own_bid"], facts["own_ask"], facts["edge"], facts["step"] = -math.inf, math.inf, math.inf, 0.01
        facts["edge"][:, 0] = 0.0
        facts["tradable"], facts["session_open"], facts["shortable"] = 1, 1, 3
        for name in ("order_qty", "order_notional_usd", "symbol_usd", "gross_usd", "buying_power_usd"):
            account[name] = _PLENTY
        account["collar"], account["stale_intent_ns"], account["active_per_side"] = 1.0, _FOREVER, 1000
        for name in ("rate_ns", "duplicate_ns", "repeated_ns", "killed", "paused", "blocked", "epoch"):
            account[name] = 0
        account["connected"] = account["reconciled"] = account["account_ok"] = 1

    def _play(self, data: bytes) -> None:
        self._far.send(data)
        k.turn(self.table.ctypes.data, 0)

    def play(self) -> int:
        """Once through; returns the bytes of the order that left, 0 if none did."""
        frame = self._frames[self.count & 1]
        self.count += 1
        return int(
            k.rehearse(
                self.table.ctypes.data, self._far.fileno(), frame.ctypes.data, len(frame), self._reply.ctypes.data
            )
        )

    def close(self) -> None:
        self._near.close()
        self._far.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection to ourselves: the same way through the kernel that an order takes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    for end in (near, far):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far
