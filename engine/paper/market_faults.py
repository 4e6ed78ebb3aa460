"""Faults that the market source itself carries out, offered as far as the source has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.paper.fault_args import Args, FaultError

if TYPE_CHECKING:
    from engine.paper.faults import FaultDesk


def _market_command(name: str, arguments: Callable[[Args], dict[str, Any]]) -> Callable[[FaultDesk, Args], str]:
    """A command of the market source, offered if the source has it."""

    def command(desk: FaultDesk, args: Args) -> str:
        method = getattr(desk.gateway.market, name, None)
        if method is None:
            raise FaultError("this market source can't do it; use the synthetic market")
        keywords = arguments(args)
        if name == "gap_index":
            args.end()
            desk.gateway.catch_up()
            method(**keywords)
            return f"index: {name} {keywords}"
        chosen = desk.symbols(args)
        args.end()
        desk.gateway.catch_up()
        for symbol in chosen:
            method(symbol, **keywords)
        return f"{len(chosen)} symbols: {name} {keywords}"

    return command


def _over_ns(args: Args) -> int:
    return int(args.number("over_s", 0.0, 0.0, 86_400.0) * 1e9)


MARKET_FAULTS: dict[str, Callable[[FaultDesk, Args], str]] = {
    "shock": _market_command("shock", lambda a: {"pct": a.number("pct", None, -95.0, 1000.0), "over_ns": _over_ns(a)}),
    "gap_index": _market_command(
        "gap_index",
        lambda a: {
            "pct": a.number("pct", None, -90.0, 150.0),
            "over_ns": _over_ns(a),
            "with_stocks": a.flag("with_stocks"),
        },
    ),
    "halt": _market_command("halt", lambda a: {}),
    "resume": _market_command("resume", lambda a: {}),
    "freeze": _market_command("freeze", lambda a: {}),
    "widen": _market_command("widen", lambda a: {"bps": a.number("bps", None, 0.0, 2000.0)}),
    "cross": _market_command(
        "cross",
        lambda a: {"for_ns": int(a.number("for_s", 1.0, 1e-3, 3600.0) * 1e9), "ticks": int(a.number("ticks", 1.0))},
    ),
}
