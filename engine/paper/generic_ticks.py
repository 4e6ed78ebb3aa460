"""Generic ticks of market data: which the broker knows for a stock, which of them have data here. Pure."""

from __future__ import annotations

from collections.abc import Iterable

KNOWN = {
    "100": "Option Volume",
    "101": "Option Open Interest",
    "104": "Historical Volatility",
    "105": "Average Opt Volume",
    "106": "impvolat",
    "165": "Misc. Stats",
    "220": "Creditman Mark Price",
    "221": "Mark Price",
    "225": "Auction",
    "232": "Pl Price",
    "233": "RTVolume",
    "236": "inventory",
    "258": "Fundamentals",
    "292": "Wide_news",
    "293": "TradeCount",
    "294": "TradeRate",
    "295": "VolumeRate",
    "318": "LastRTHTrade",
    "375": "RTTrdVolume",
    "411": "rthistvol",
    "456": "IBDividends",
    "460": "Bond Factor Multiplier",
    "576": "EtfNavBidAsk",
    "577": "EtfNavLast",
    "578": "EtfNavClose",
    "586": "IPOHLMPRC",
    "587": "Pl Price Delayed",
    "588": "Futures Open Interest",
    "595": "Short-Term Volume X Mins",
    "614": "EtfNavMisc",
    "619": "Creditman Slow Mark Price",
    "623": "EtfFrozenNavLast",
    "mdoff": "no market data but what is named",
}
"""By id, in the broker's words."""

SIMULATED = frozenset(("220", "221", "232", "233", "236", "375"))
MARK_PRICE = frozenset(("220", "221", "232"))
"""Names of one thing."""


def unknown(asked: Iterable[str]) -> list[str]:
    """What the broker doesn't know: the request is refused. News may name its providers (``292:BRFG``)."""
    return sorted(tick for tick in asked if _id(tick) not in KNOWN)


def without_data(asked: Iterable[str]) -> list[str]:
    """What the broker has data of and this gateway hasn't, in words."""
    return sorted(f"{tick[:20]}({KNOWN[_id(tick)]})" for tick in asked if _id(tick) not in SIMULATED)


def _id(tick: str) -> str:
    return "292" if tick.startswith("292:") else tick


def legal() -> str:
    return ",".join(f"{tick}({name})" for tick, name in KNOWN.items())
