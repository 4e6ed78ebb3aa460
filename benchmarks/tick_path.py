"""The parts of the way from tick to order, each alone and compiled, beside what stock ib_insync takes.

usage: python benchmarks/tick_path.py [--smoke] [--events FILE] [--json FILE]

decode      bytes of depth messages to TICK records, beside the same bytes through stock ib_insync
pipeline    book, features, filter, strategy and gate for every recorded event, one event at a time, on one core
gate        the pre-trade check of an order that passes
encode      an order from its template, beside the library
hop         one time stamp and its place in a histogram

``--events`` is an order-book recording (LOBSTER); without it a generated market is recorded first.
"""

from __future__ import annotations

import argparse
import atexit
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.contenders import flat_model  # noqa: E402
from benchmarks.machine import as_before, describe, first  # noqa: E402
from benchmarks.tick_path_kernels import gates, pipeline, stamps  # noqa: E402
from engine.broker import decode as d  # noqa: E402
from engine.domain.instruments import SIM_UNIVERSE  # noqa: E402
from engine.market.state import Market  # noqa: E402
from engine.model.filter import RegimeFilter  # noqa: E402
from engine.risk import pretrade  # noqa: E402
from engine.strategy import regime_kernel as rk  # noqa: E402
from engine.strategy.regime import Parameters, RegimeStrategy  # noqa: E402
from shm.layouts import INTENT, MODEL, TICK  # noqa: E402

NS = 1_000_000_000


def best(work: Callable[[], None], repeats: int) -> list[float]:
    """Seconds of each repetition."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return taken


def depth_bytes(req_id: int, count: int) -> bytes:
    frames = []
    for k in range(count):
        fields = (13, 1, req_id, k % 10, "NASDAQ", 1, k % 2, f"{150 + (k % 50) / 100:.2f}", 100 + k % 900, 1)
        body = "".join(f"{f}\0" for f in fields).encode()
        frames.append(len(body).to_bytes(4, "big") + body)
    return b"".join(frames)


def decoding(count: int, repeats: int) -> dict[str, float]:
    """ns per depth message: ours and stock, in turns of the same run. Stock gets 30 messages per socket read."""
    from ib_insync import IB, Contract

    frames = d.FrameDecoder()
    req_id = frames.open_line(0, d.LINE_DEPTH)
    raw = np.frombuffer(bytearray(depth_bytes(req_id, count)), np.uint8)
    ticks = np.zeros(count, TICK)
    ib = IB()
    ib.client._serverVersion, ib.client.connState = 176, ib.client.CONNECTED
    contract = Contract(secType="STK", conId=265598, symbol="AAPL", exchange="SMART", currency="USD")
    ib.wrapper.startTicker(7, contract, "mktDepth")
    ticker = ib.wrapper.reqId2Ticker[7]
    few = max(300, count // 20)
    stock = depth_bytes(7, few)
    size = len(stock) // few * 30
    pieces = [stock[i : i + size] for i in range(0, len(stock), size)]

    def ours() -> None:
        frames.run(raw, 0, len(raw), 1, ticks, 0)

    def theirs() -> None:
        for piece in pieces:
            ib.client._onSocketHasData(piece)

    for level in range(10):  # rows that the updates find
        for side, rows in ((0, ticker.domAsks), (1, ticker.domBids)):
            from ib_insync.objects import DOMLevel

            rows.append(DOMLevel(150.0 + level * (0.01 if side == 0 else -0.01), 100, ""))
    mine, stocks = [], []
    for _ in range(repeats):
        mine += best(ours, 1)
        stocks += best(theirs, 1)
    ib.client.connState = ib.client.DISCONNECTED  # or its end complains that it was never connected
    a, b = float(np.median(mine)) / count * 1e9, float(np.median(stocks)) / few * 1e9
    return {"decode_ns": a, "stock_ns": b, "ratio": b / a}


def recorded(path: str, most: int) -> tuple[Any, Any]:
    """(instruments, ticks) of a recording, or of a generated market that was recorded."""
    from engine.model.history import ticks_of
    from engine.paper.port import MARKET_EVENT

    out = np.zeros(1 << 16, MARKET_EVENT)
    source: Any
    if path:
        from engine.paper.market.lobster import LobsterMarket

        source = LobsterMarket(Path(path), None, start="09:30", levels=5, in_process=True, start_ns=1)
    else:
        from engine.paper.market.synthetic import SyntheticMarket

        source = SyntheticMarket(SIM_UNIVERSE, None, 7, 10, start_ns=1, messages_per_s=1000.0)
    batches, total, now = [], 0, 1
    while total < most:
        now += NS
        source.advance(now)
        got = 0
        while count := source.poll(out):
            batches.append(ticks_of(out[:count]))
            got += len(batches[-1])
        total += got
        if path and not got and now > 7 * 3600 * NS:
            break
    return source.instruments, np.concatenate(batches)[:most]


def passing() -> tuple[Any, Any, Any]:
    """Facts and an intent that passes every check."""
    intent = np.zeros(1, INTENT)
    for name, value in (("intent_id", 1), ("kind", 1), ("source", 1), ("side", 1), ("order_type", 2), ("tif", 1),
                        ("qty", 10.0), ("limit_price", 150.0), ("t_intent_ns", 1)):  # fmt: skip
        intent[name] = value
    return facts(len(SIM_UNIVERSE)), account(), intent


def facts(count: int) -> Any:
    f = np.zeros(count, pretrade.SYMBOL_FACTS)
    f["mid"], f["own_bid"], f["own_ask"], f["last_price"], f["shortable"] = 150.0, -np.inf, np.inf, np.nan, 3
    for name in ("tradable", "session_open", "extended_open", "fresh"):
        f[name] = 1
    f["edge"], f["step"] = np.inf, 0.01
    f["edge"][:, 0] = 0.0
    return f


def account() -> Any:
    a = np.zeros(1, pretrade.ACCOUNT_FACTS)
    for name, value in (("now_ns", 2), ("buying_power_usd", 1e9), ("order_qty", 1e6), ("order_notional_usd", 1e8),
                        ("symbol_usd", 1e8), ("gross_usd", 1e9), ("collar", 0.05), ("active_per_side", 20),
                        ("rate_per_s", 20), ("stale_intent_ns", NS), ("connected", 1), ("reconciled", 1),
                        ("account_ok", 1), ("owner", 1), ("lease", 1), ("allow_short", 1), ("budget", 1)):  # fmt: skip
        a[name] = value
    return a


def whole(path: str, most: int, repeats: int) -> dict[str, float]:
    """Events per second through book, features, filter, strategy and gate, one event at a time."""
    instruments, ticks = recorded(path, most)
    rates, decided = [], 0
    for _ in range(repeats):
        market = Market(instruments, bar_s=10.0)
        models = np.zeros(len(market.books), MODEL)
        regimes = RegimeFilter(models)
        regimes.load(flat_model(10.0))
        strategy = RegimeStrategy(
            Parameters(40_000, 300_000, 6_000, 2_500, 0.7, 0.35, 20 * NS, 3 * NS, 0)
        )  # every signal is a flat symbol that may enter
        strategy.parameters["entry_gap_ns"] = 0
        counts = np.zeros(4, np.int64)
        situation, decision = np.zeros(1, rk.SITUATION), np.zeros(1, rk.DECISION)
        arrays = (facts(len(instruments)), account(), np.zeros(1, INTENT), np.zeros(3))
        working = np.zeros(4, rk.WORKING)
        sizes = np.array([i.tick_size for i in instruments])
        begun = time.perf_counter()
        at = 0
        while at < len(ticks):
            at = int(
                pipeline(
                    ticks, at, market.state, market.control, market.books, models, market.signals, market.changed,
                    situation, working, strategy.memory, strategy.parameters, decision, *arrays, sizes, counts,
                )
            )  # fmt: skip
            if at < len(ticks):
                for bars in market.close_until(int(ticks[at]["t_socket_ns"])):
                    regimes.step(bars["symbol"], bars["x"], bars["valid"], int(bars["t_end_ns"][0]))
        rates.append(len(ticks) / (time.perf_counter() - begun))
        decided = int(counts[1])
    return {"events": float(len(ticks)), "events_per_s": float(np.median(rates)), "gated": float(decided)}


def encoding(repeats: int) -> dict[str, float]:
    from engine.broker import encode as e
    from engine.broker.ib_link import IbLink
    from engine.broker.link import LinkPhase, WireOrder
    from engine.domain.instruments import Instrument
    from engine.runtime.ids import order_ref

    link = IbLink("127.0.0.1", 1, 7, (Instrument(0, "AAPL", 265598),), lambda: 0)
    link._client._serverVersion, link._client.connState, link.phase = 176, link._client.CONNECTED, LinkPhase.OPEN
    link.learn("DUSIM001")
    out = np.zeros(4 * e.FRAME_BYTES, np.uint8)
    order = WireOrder(5, 0, 1, 100.0, "LMT", 187.15, "DAY", False, order_ref(1 << 57), "DUSIM001")
    from benchmarks.tick_path_kernels import encodes

    n = 20_000
    ours = np.median(best(lambda: encodes(link.templates, out, n), repeats)) / n
    theirs = np.median(
        best(lambda: [link._client.placeOrder(5, link._contracts[0], link._order(order)) for _ in range(200)], repeats)
    )
    return {"encode_ns": float(ours * 1e9), "library_ns": float(theirs / 200 * 1e9)}


def run(smoke: bool, path: str) -> dict[str, Any]:
    repeats = 3 if smoke else 9
    print(f"machine   {describe()}")
    print("topology  one thread; medians of interleaved repetitions")
    decode = decoding(5_000 if smoke else 200_000, repeats)
    print(f"decode    {decode['decode_ns']:8.0f} ns a depth message, stock ib_insync {decode['stock_ns']:.0f}: "
          f"{decode['ratio']:.0f} x cheaper (asked: 20)")  # fmt: skip
    way = whole(path, 20_000 if smoke else 1_000_000, 2 if smoke else 5)
    print(f"pipeline  {way['events_per_s'] / 1e6:8.2f} M events/s of {way['events']:.0f} "
          f"{'recorded' if path else 'generated'} events, {way['gated']:.0f} intents judged (asked: 2.0)")  # fmt: skip
    f, a, intent = passing()
    out, n = np.zeros(3), 100_000
    gate = float(np.median(best(lambda: gates(intent, f, a, out, n), repeats)) / n * 1e9)
    print(f"gate      {gate:8.0f} ns (asked: 2000)")
    wire = encoding(repeats)
    print(f"encode    {wire['encode_ns']:8.0f} ns, the library {wire['library_ns']:.0f}")
    words = np.zeros(4096, np.int64)
    clock = np.zeros(2, np.int64)
    both = float(np.median(best(lambda: stamps(words, clock.ctypes.data, n, 1), repeats)) / n * 1e9)
    only = float(np.median(best(lambda: stamps(words, clock.ctypes.data, n, 0), repeats)) / n * 1e9)
    print(f"hop       {both:8.1f} ns with its reading of the clock, {only:.1f} without (asked: 50)")
    return {"decode": decode, "pipeline": way, "gate_ns": gate, "encode": wire, "hop_ns": both, "record_ns": only}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a short run, to see that it works")
    parser.add_argument("--events", default="", help="an order-book recording")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    atexit.register(as_before)
    first()
    found = run(args.smoke, args.events)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
