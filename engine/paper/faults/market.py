"""Faults of market data; those that the market source itself carries out are offered as far as it has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.paper.faults.args import Arg, FaultError, Values, flag, number
from engine.paper.faults.desk import Fault, FaultDesk
from engine.paper.faults.orders import SYMBOL


def depth_reset(desk: FaultDesk, values: Values) -> str:
    chosen = desk.symbols(values)
    for symbol in chosen:
        desk.gateway.feed.depth.reset(symbol)
    return f"depth of {len(chosen)} symbols was reset"


def depth_malformed(desk: FaultDesk, values: Values) -> str:
    sent = sum(desk.gateway.feed.depth.malform(symbol) for symbol in desk.symbols(values))
    return f"{sent} rows out of range sent"


def depth_after_cancel(desk: FaultDesk, values: Values) -> str:
    return f"{desk.gateway.feed.depth.echo_cancelled()} late rows sent"


def depth_halted(desk: FaultDesk, values: Values) -> str:
    chosen = desk.symbols(values)
    for symbol in chosen:
        desk.gateway.feed.depth.halt(symbol)
    return f"depth of {len(chosen)} symbols ended with 316"


def stall(desk: FaultDesk, values: Values) -> str:
    feed, chosen = desk.gateway.feed, desk.symbols(values)
    for symbol in chosen:
        feed.stall(symbol)

    def undo() -> None:
        for symbol in chosen:
            feed.unstall(symbol)

    desk.later(values.number("seconds"), undo)
    return f"{len(chosen)} symbols get no more market data, and nothing says so"


def unstall(desk: FaultDesk, values: Values) -> str:
    chosen = desk.symbols(values)
    for symbol in chosen:
        desk.gateway.feed.unstall(symbol)
    return f"{len(chosen)} symbols get market data again"


def _source(name: str, help: str, args: dict[str, Arg], keywords: Callable[[Values], dict[str, Any]]) -> Fault:
    """A command of the market source, symbol by symbol."""

    def run(desk: FaultDesk, values: Values) -> str:
        method = getattr(desk.gateway.market, name, None)
        if method is None:
            raise FaultError("this market source can't do it; use the synthetic market")
        given = keywords(values)
        if "symbol" not in args:
            desk.gateway.catch_up()
            method(**given)
            return f"index: {name} {given}"
        chosen = desk.symbols(values)
        desk.gateway.catch_up()
        for symbol in chosen:
            method(symbol, **given)
        return f"{len(chosen)} symbols: {name} {given}"

    return Fault(help, run, args)


def _over_ns(values: Values) -> int:
    return int(values.number("over_s") * 1e9)


_OVER = number("within so many seconds; 0: in one jump", 0.0, 0.0, 86_400.0)

MARKET_FAULTS: dict[str, Fault] = {
    "depth_reset": Fault("317, then every row anew", depth_reset, {"symbol": SYMBOL}),
    "depth_malformed": Fault("an update of a row that doesn't exist", depth_malformed, {"symbol": SYMBOL}),
    "depth_after_cancel": Fault("a row on the depth request that was cancelled last", depth_after_cancel),
    "depth_halted": Fault("316: depth ends and must be asked for anew", depth_halted, {"symbol": SYMBOL}),
    "stall": Fault(
        "market data stops without a word",
        stall,
        {"symbol": SYMBOL, "seconds": number("how long; 0: until unstall", 0.0)},
    ),
    "unstall": Fault("ends stall", unstall, {"symbol": SYMBOL}),
    "shock": _source(
        "shock",
        "the price moves and stays there (synthetic market)",
        {"symbol": SYMBOL, "pct": number("by so many percent", None, -95.0, 1000.0), "over_s": _OVER},
        lambda v: {"pct": v.number("pct"), "over_ns": _over_ns(v)},
    ),
    "gap_index": _source(
        "gap_index",
        "the index moves (synthetic market)",
        {
            "pct": number("by so many percent", None, -90.0, 150.0),
            "over_s": _OVER,
            "with_stocks": flag("the stocks move too, and the index follows"),
        },
        lambda v: {"pct": v.number("pct"), "over_ns": _over_ns(v), "with_stocks": v.flag("with_stocks")},
    ),
    "halt": _source("halt", "trading in a symbol is halted: 316 on depth", {"symbol": SYMBOL}, lambda v: {}),
    "resume": _source("resume", "ends halt and freeze", {"symbol": SYMBOL}, lambda v: {}),
    "freeze": _source(
        "freeze", "the feed is stuck; orders still trade (synthetic market)", {"symbol": SYMBOL}, lambda v: {}
    ),
    "widen": _source(
        "widen",
        "the spread is kept wide (synthetic market)",
        {"symbol": SYMBOL, "bps": number("basis points; 0 ends it", None, 0.0, 2000.0)},
        lambda v: {"bps": v.number("bps")},
    ),
    "cross": _source(
        "cross",
        "bids are shown above the best ask (synthetic market)",
        {
            "symbol": SYMBOL,
            "for_s": number("seconds", 1.0, 1e-3, 3600.0),
            "ticks": number("by so many ticks; 0: locked", 1.0),
        },
        lambda v: {"for_ns": int(v.number("for_s") * 1e9), "ticks": v.count("ticks")},
    ),
}
