"""What answers the driver of ``tick_to_order``: our shared host, a bare echo, and what a user would write."""

from __future__ import annotations

import math
import mmap
import os
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import first
from shm.jit import kernel

from numba import types  # isort: skip

LEAN = 0.35
CONFIDENCE = 0.7

_recv = types.ExternalFunction("recv", types.int64(types.int32, types.int64, types.int64, types.int32))
_send = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))
_DONTWAIT = 0x40
STAMPS = ("t_socket", "t_decoded", "t_signal", "t_intent", "t_gate", "t_gated", "t_wire")
"""A contender's own times of its last answer, ns; the echo's are the first, the last but one and the last."""


def shared_stamps() -> npt.NDArray[np.int64]:
    """Words that a child writes and its parent reads."""
    return np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)


@kernel("int64(int64, int64, int64, int64, int64[::1])")
def echo_forever(fd, buffer, size, reply, stamps):  # type: ignore[no-untyped-def]
    """Answer whatever comes with ``reply`` bytes, polling the socket; returns when the peer has gone."""
    time = np.zeros(2, np.int64)
    at = time.ctypes.data
    while True:
        got = _recv(np.int32(fd), buffer, size, np.int32(_DONTWAIT))
        if got > 0:
            _clock_gettime(1, at)
            stamps[0] = time[0] * 1_000_000_000 + time[1]
            stamps[5] = stamps[0]
            _send(np.int32(fd), buffer, reply, np.int32(0))
            _clock_gettime(1, at)
            stamps[6] = time[0] * 1_000_000_000 + time[1]
        elif got == 0:
            return 0


def on_core(core: int, work: Callable[[], object], *, ahead: bool = True) -> int:
    """Run ``work`` in a child pinned to ``core``; returns its pid. ``ahead``: before everything else there."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.sched_setaffinity(0, {core})
        if ahead:
            first()
        else:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_out(pid: int) -> None:
    """Until a child of ``on_core`` has ended. Raises RuntimeError if it failed."""
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("a child of the benchmark failed: see above")


def echo(port: int, answer_bytes: int, stamps: npt.NDArray[np.int64]) -> None:
    """The limit: nothing between reading and writing."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = np.zeros(65536, np.uint8)
        echo_forever(sock.fileno(), buffer.ctypes.data, len(buffer), answer_bytes, stamps)


def ours(config: Any, stamps: npt.NDArray[np.int64], profile: str = "") -> None:
    """The shared host as ``l2dash up`` runs it. What only paces (entries every 6 s, 4 intents a second, the strategy's
    exposure) is opened."""
    from engine.procs.hot_path import HotPath
    from engine.runtime.host import Host
    from engine.strategy.pace import BURST_AT, RATE, TOKENS

    class Opened(Host):
        def _compose(self) -> None:
            super()._compose()
            if isinstance(self._turns, HotPath):
                algo = self._turns.algo
                algo.strategy.parameters["entry_gap_ns"] = 0
                algo.strategy.parameters["cooldown_ns"] = 0
                # An order that ended without a fill counts as exposure until the account is looked at again.
                algo.strategy.parameters["gross_usd"] = 1e12
                algo.pace.bucket[[TOKENS, RATE, BURST_AT]] = 1e12
                _tell(self._turns, stamps)

    host = Opened(config)
    if profile:
        import cProfile

        cProfile.runctx("host.run()", {}, {"host": host}, profile)
    else:
        host.run()


def _tell(hot: Any, stamps: npt.NDArray[np.int64]) -> None:
    """Also leave the stamps of each order in ``stamps``, after it has left."""
    take_over = hot._sent

    def sent() -> None:
        for i, name in enumerate(STAMPS):
            stamps[i] = hot._get(name)
        take_over()

    hot._sent = sent


def flat_model(bar_s: float) -> Any:
    """A valid model that is sure of its calm regime whatever it sees: the driver decides, not the market."""
    from engine.market.layout import FEATURE_SCHEMA, FEATURES
    from engine.model.params import PSI_BINS, Model

    k, f = 3, len(FEATURES)
    return Model(
        startprob=np.array([0.96, 0.02, 0.02]), transmat=np.tile([0.96, 0.02, 0.02], (k, 1)), means=np.zeros((k, f)),
        covars=np.tile(np.eye(f), (k, 1, 1)), shift=np.zeros(f), scale=np.full(f, 100.0), loglik_floor=-1e5,
        psi_edges=np.tile(np.linspace(-1, 1, PSI_BINS - 1), (f, 1)), psi_shares=np.full((f, PSI_BINS), 1 / PSI_BINS),
        schema=FEATURE_SCHEMA, provenance="synthetic", bar_s=bar_s, window="measurement",
    )  # fmt: skip


def plain(port: int, con_id: int, symbol: str, filtered: bool) -> None:
    """A single-process program on ib_insync: ticker event, numpy features, regime, placeOrder.

    ``filtered``: our compiled forward filter in the place of hmmlearn's ``predict_proba`` over the last 60 events.
    """
    from ib_insync import IB, Contract, LimitOrder

    ib = IB()
    ib.connect("127.0.0.1", port, clientId=11, timeout=20)
    contract = Contract(secType="STK", conId=con_id, symbol=symbol, exchange="SMART", currency="USD")
    ticker = ib.reqMktDepth(contract, numRows=10, isSmartDepth=True)
    rng = np.random.default_rng(1)
    regime: Callable[[deque[Any]], float]
    if filtered:
        regime = _our_filter()
    else:
        from hmmlearn.hmm import GaussianHMM

        model = GaussianHMM(3, covariance_type="full", n_iter=5, random_state=1)
        model.startprob_, model.transmat_ = np.array([0.96, 0.02, 0.02]), np.tile([0.96, 0.02, 0.02], (3, 1))
        model.means_, model.covars_ = np.zeros((3, 6)), np.tile(np.eye(6) * 1e4, (3, 1, 1))
        regime = lambda window: float(model.predict_proba(np.array(window))[-1].max())  # noqa: E731
    window: deque[Any] = deque((rng.normal(size=6) for _ in range(60)), maxlen=60)
    state = {"mid": 0.0, "trade": None}

    def on_update(t: Any) -> None:
        bids, asks = t.domBids, t.domAsks
        if not bids or not asks:
            return
        bid_size, ask_size = np.array([b.size for b in bids[:5]]), np.array([a.size for a in asks[:5]])
        mid = 0.5 * (bids[0].price + asks[0].price)
        lean = (bids[0].size - asks[0].size) / (bids[0].size + asks[0].size)
        depth = bid_size.sum() + ask_size.sum()
        spread = asks[0].price - bids[0].price
        move = mid - state["mid"] if state["mid"] else 0.0
        state["mid"] = mid
        window.append(
            np.array([lean, (bid_size.sum() - ask_size.sum()) / depth, math.log(spread), move, move * move,
                      math.log(depth)])
        )  # fmt: skip
        sure = regime(window)
        trade = state["trade"]
        if abs(lean) >= LEAN and sure >= CONFIDENCE and (trade is None or trade.isDone()):
            side, price = ("BUY", bids[0].price) if lean > 0 else ("SELL", asks[0].price)
            state["trade"] = ib.placeOrder(contract, LimitOrder(side, 59, price, tif="DAY"))

    ticker.updateEvent += on_update
    ib.client.MaxRequests = 0  # its throttle would hold back orders after 45 in a second
    try:
        ib.run()
    except (ConnectionError, SystemExit, KeyboardInterrupt):
        return


def _our_filter() -> Callable[[deque[Any]], float]:
    from engine.model.filter import forward

    model = flat_model(10.0)
    start, trans, means, white, constant, shift, scale = model.compiled()
    alpha = np.zeros(3)
    first = [1]

    def step(window: deque[Any]) -> float:
        z = np.ascontiguousarray((window[-1] - shift) / scale)
        forward(alpha, z, first[0], start, trans, means, white, constant)
        first[0] = 0
        return float(alpha.max())

    return step
