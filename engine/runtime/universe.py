"""Instruments of an instance, derived from its configuration: stocks first, the index last."""

from __future__ import annotations

from dataclasses import replace

from engine.config import Config, ConfigError
from engine.domain.instruments import MAX_SYMBOLS, SIM_INDEX, SIM_UNIVERSE, Instrument

_DEFAULT_DEPTH_LINES = 3
"""IBKR's depth subscriptions without booster packs."""


def instruments(config: Config) -> tuple[Instrument, ...]:
    """All symbols in index order. ``con_id`` is 0 until the bridge has qualified an unknown contract.

    Raises ConfigError for duplicates and for more than MAX_SYMBOLS.
    """
    known = {i.symbol: i for i in SIM_UNIVERSE}
    if config.universe.stocks:
        chosen = [
            replace(
                known.get(s.symbol, Instrument(0, s.symbol, 0, primary_exchange="")),
                exchange=s.exchange,
                primary_exchange=s.primary_exchange or (known[s.symbol].primary_exchange if s.symbol in known else ""),
                currency=s.currency,
            )
            for s in config.universe.stocks
        ]
    else:
        chosen = list(SIM_UNIVERSE if config.instance.mode == "sim" else SIM_UNIVERSE[:_DEFAULT_DEPTH_LINES])
    if config.universe.index == "INDU":
        chosen.append(SIM_INDEX)
    elif config.universe.index == "DIA":
        chosen.append(
            Instrument(0, "DIA", 0, primary_exchange="ARCA", long_name="SPDR Dow Jones Industrial Average ETF")
        )
    names = [i.symbol for i in chosen]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"universe.stocks: {name} is named twice")
    if len(chosen) > MAX_SYMBOLS:
        raise ConfigError(f"universe.stocks: {len(chosen)} symbols, allowed are {MAX_SYMBOLS} with the index")
    return tuple(replace(instrument, index=i) for i, instrument in enumerate(chosen))


def index_symbol(config: Config) -> int:
    """Symbol number of the index, -1 if none is watched."""
    return -1 if config.universe.index == "none" else len(instruments(config)) - 1
