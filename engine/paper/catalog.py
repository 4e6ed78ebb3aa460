"""The contracts that the gateway knows: lookup, details, trading hours, market rules, depth venues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from engine.domain.instruments import Instrument
from engine.paper.place_order import ContractKey

TIME_ZONE = "US/Eastern"
NEW_YORK = ZoneInfo("America/New_York")
DAY_ROLL_HOUR = 4
"""The trading day begins at 04:00 New York, with the pre-market session."""

SEC_TYPES = frozenset(
    (
        "STK",
        "IND",
        "FUT",
        "OPT",
        "CASH",
        "CFD",
        "BOND",
        "CMDTY",
        "FUND",
        "FOP",
        "WAR",
        "IOPT",
        "BAG",
        "CRYPTO",
        "CONTFUT",
    )
)
VENUES = ("SMART", "NASDAQ", "NYSE", "ARCA", "BATS", "IEX", "ISLAND")
ORDER_TYPES = "DAY,GTC,IOC,LMT,MKT,MOC,OCA,STP,STPLMT,TRAIL,WHATIF"
STOCK_RULE = 26
INDEX_RULE = 239
PAIR_RULE = 59
MARKET_RULES: dict[int, tuple[tuple[float, float], ...]] = {
    STOCK_RULE: ((0.0, 0.01),),
    INDEX_RULE: ((0.0, 0.01),),
    PAIR_RULE: ((0.0, 0.00005),),
}
DEPTH_VENUES = (*((v, "STK", v, "Deep2", 2147483647) for v in VENUES[1:]), ("SMART", "STK", "", "Deep", 1))
SMART_COMPONENTS = tuple(
    (bit, venue, letter) for bit, (venue, letter) in enumerate(zip(VENUES[1:], "QNPZVI", strict=True))
)


class UnknownContract(ValueError):
    """No contract fits; ``code`` is the error a client gets (200 unknown, 321 invalid request)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def trading_day(wall_s: float) -> str:
    """The trading day (YYYYMMDD) of a UTC time in seconds: rolls at 04:00 New York."""
    return (datetime.fromtimestamp(wall_s, NEW_YORK) - timedelta(hours=DAY_ROLL_HOUR)).strftime("%Y%m%d")


class Catalog:
    """Instruments by index, contract id and symbol."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self.instruments: dict[int, Instrument] = {i.index: i for i in instruments}
        self._by_con_id = {i.con_id: i for i in instruments}
        self._by_symbol = {i.symbol: i for i in instruments} | {local_symbol(i): i for i in instruments}

    @property
    def pairs(self) -> frozenset[int]:
        """Symbols that are currency pairs."""
        return frozenset(s for s, i in self.instruments.items() if i.sec_type == "CASH")

    def __getitem__(self, symbol: int) -> Instrument:
        return self.instruments[symbol]

    def matching(self, pattern: str) -> list[Instrument]:
        """Instruments whose symbol or name contains ``pattern``."""
        wanted = pattern.upper()
        return [i for i in self.instruments.values() if wanted in i.symbol or wanted in i.long_name.upper()]

    def find(self, key: ContractKey) -> Instrument:
        """The instrument a client means. Raises UnknownContract."""
        if key.con_id == 0 and key.sec_type not in SEC_TYPES:
            raise UnknownContract(
                321,
                f"Error validating request.-'bx' : cause - {key.sec_type[:20]!r} is no valid security type",
            )
        if key.con_id:
            found = self._by_con_id.get(key.con_id)
        else:
            found = self._by_symbol.get(key.symbol or key.local_symbol)
        if found is not None:
            venues = self.venues(found)
            fits = (
                (not key.sec_type or key.sec_type == found.sec_type)
                and key.currency in ("", found.currency)
                and (key.exchange in venues or not key.exchange or bool(key.con_id))
                and (not key.symbol or key.symbol == found.symbol)
            )
            if not fits:
                found = None
        if found is None:
            raise UnknownContract(200, "No security definition has been found for the request")
        return found

    @staticmethod
    def venues(instrument: Instrument) -> tuple[str, ...]:
        """Exchanges on which a contract may be addressed."""
        return VENUES if instrument.sec_type == "STK" else (instrument.exchange,)


def contract_fields(instrument: Instrument, exchange: str = "") -> tuple[object, ...]:
    """The 11 contract fields of most answers."""
    return (
        instrument.con_id,
        instrument.symbol,
        instrument.sec_type,
        "",
        "0",
        "",
        "",
        exchange or instrument.exchange,
        instrument.currency,
        local_symbol(instrument),
        trading_class(instrument),
    )


def local_symbol(instrument: Instrument) -> str:
    """The exchange's own name: of a currency pair both currencies."""
    pair = instrument.sec_type == "CASH"
    return f"{instrument.symbol}.{instrument.currency}" if pair else instrument.symbol


def trading_class(instrument: Instrument) -> str:
    """NMS for Nasdaq stocks, the symbol otherwise."""
    if instrument.sec_type == "STK" and instrument.primary_exchange == "NASDAQ":
        return "NMS"
    return local_symbol(instrument)


def details_fields(instrument: Instrument, exchange: str, hours: str, version: int) -> tuple[object, ...]:
    """contractDetails from the symbol on, in the layout of ``version``; ``hours`` in which it trades."""
    stock = instrument.tradable
    venues = Catalog.venues(instrument)
    rule = PAIR_RULE if instrument.sec_type == "CASH" else STOCK_RULE if stock else INDEX_RULE
    head: tuple[object, ...] = (
        instrument.symbol,
        instrument.sec_type,
        "",
        "0",
        "",
        exchange or instrument.exchange,
        instrument.currency,
        local_symbol(instrument),
        trading_class(instrument),
        trading_class(instrument),
        instrument.con_id,
        instrument.tick_size,
    )
    size_multiplier: tuple[object, ...] = ("100",) if version < 164 else ()
    sizes: tuple[object, ...] = ()
    if version == 163:
        sizes = ("1",)
    elif version >= 164:
        sizes = ("1", "1", "100")
    return (
        head
        + size_multiplier
        + (
            "",
            ORDER_TYPES if stock else "",
            ",".join(venues),
            "1",
            "0",
            instrument.long_name or instrument.symbol,
            instrument.primary_exchange,
            "",
            "" if stock else "Indices",
            "" if stock else "Broad Range Equity Index",
            "",
            TIME_ZONE,
            hours,
            hours,
            "",
            "0",
            "0",
            "1",
            "",
            "",
            ",".join([str(rule)] * len(venues)),
            "",
            "COMMON" if stock else "",
        )
        + sizes
    )
