"""Instruments: what can be traded, with the facts that prices and sizes must obey."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SYMBOLS = 64
"""Symbols per instance. A symbol is an index below this everywhere, so that a set of symbols fits one 64-bit mask."""

ALL_SYMBOLS = 0xFFFF
"""Symbol index in a record that concerns every symbol."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One traded stock or watched index.

    ``index`` is the position in the configured universe and the symbol number in every shared-memory record.
    ``tick_size`` is the minimum price increment in ``currency``. ``start_price`` only seeds the paper market.
    """

    index: int
    symbol: str
    con_id: int
    sec_type: str = "STK"
    exchange: str = "SMART"
    primary_exchange: str = "NASDAQ"
    currency: str = "USD"
    tick_size: float = 0.01
    start_price: float = 100.0
    long_name: str = ""

    @property
    def tradable(self) -> bool:
        """An index is watched, never traded."""
        return self.sec_type in ("STK", "CASH")


def _stock(index: int, symbol: str, con_id: int, start: float, name: str, primary: str = "NASDAQ") -> Instrument:
    return Instrument(index, symbol, con_id, start_price=start, long_name=name, primary_exchange=primary)


SIM_UNIVERSE: tuple[Instrument, ...] = (
    _stock(0, "AAPL", 265598, 150.0, "APPLE INC"),
    _stock(1, "MSFT", 272093, 410.0, "MICROSOFT CORP"),
    _stock(2, "AMZN", 3691937, 180.0, "AMAZON.COM INC"),
    _stock(3, "GOOGL", 208813719, 165.0, "ALPHABET INC-CL A"),
    _stock(4, "NVDA", 4815747, 120.0, "NVIDIA CORP"),
    _stock(5, "META", 107113386, 500.0, "META PLATFORMS INC-CLASS A"),
    _stock(6, "TSLA", 76792991, 220.0, "TESLA INC"),
    _stock(7, "JPM", 1520593, 200.0, "JPMORGAN CHASE & CO", "NYSE"),
)
"""The paper market's stocks."""

SIM_INDEX = Instrument(
    8,
    "INDU",
    1935181,
    sec_type="IND",
    exchange="CME",
    primary_exchange="CME",
    start_price=40_000.0,
    long_name="Dow Jones Industrial Average",
)
"""The Dow: ``INDU`` on ``CME`` at the broker, shown to people as ``DJI``."""

DISPLAY_NAMES = {"INDU": "DJI"}
"""Names shown to people where they differ from the broker's symbol."""
