"""The stocks of the synthetic market: the eight of ``sim``, or any names a user asks for."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from engine.domain.instruments import MAX_SYMBOLS, SIM_INDEX, SIM_UNIVERSE, Instrument

ALONE = (*(i.symbol for i in SIM_UNIVERSE), "IBM:190", "MMM:105", "SPY:520", "QQQ:440", "EUR.USD:1.1")
"""What a gateway that stands alone trades, so that most examples of client libraries find their contracts."""

EURO = Instrument(
    0,
    "EUR",
    12087792,
    sec_type="CASH",
    exchange="IDEALPRO",
    primary_exchange="IDEALPRO",
    tick_size=0.00005,
    start_price=1.1,
    long_name="European Monetary Union Euro",
)
MADE_UP = 900_000_000
"""Contract ids from here on are made from the symbol: stable, but not the broker's."""


def made_up_id(symbol: str) -> int:
    """A contract id for a symbol whose real one is not known here."""
    return MADE_UP + zlib.crc32(symbol.encode()) % 100_000_000


def stocks(names: Sequence[str]) -> tuple[Instrument, ...]:
    """Instruments of ``NAME`` or ``NAME:PRICE``, numbered around the index, which keeps its number.

    ``EUR.USD`` is the currency pair. Raises ValueError for a name, a price or a number of names that can't be.
    """
    if not names:
        return SIM_UNIVERSE
    known = {i.symbol: i for i in SIM_UNIVERSE} | {"EUR.USD": EURO}
    numbers = [n for n in range(MAX_SYMBOLS) if n != SIM_INDEX.index]
    if len(names) > len(numbers):
        raise ValueError(f"{len(names)} symbols, allowed are {len(numbers)} and the index")
    chosen: list[Instrument] = []
    for number, text in zip(numbers, names, strict=False):
        name, _, price = text.partition(":")
        name = name.strip().upper()
        if not name or not name.replace(".", "").replace(" ", "").isalnum() or len(name) > 12:
            raise ValueError(f"symbol {text!r}: expected NAME or NAME:PRICE, such as IBM:190")
        base = known.get(name) or Instrument(0, name, made_up_id(name), long_name=name)
        start = base.start_price
        if price:
            try:
                start = float(price)
            except ValueError:
                start = 0.0
            if not 0.5 <= start <= 10_000:
                raise ValueError(f"symbol {text!r}: the price must be a number in 0.5..10000")
        if any(name == i.symbol for i in chosen):
            raise ValueError(f"symbol {name} is named twice")
        chosen.append(replace(base, index=number, start_price=start))
    return tuple(chosen)
