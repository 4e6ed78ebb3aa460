"""What requests about contracts, market data and history do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.paper import client_requests as m
from engine.paper import generic_ticks
from engine.paper import messages_out as out
from engine.paper.catalog import DEPTH_VENUES, MARKET_RULES, NEW_YORK, SMART_COMPONENTS, TIME_ZONE, UnknownContract
from engine.paper.history import HISTORICAL, SERIES, Bar, SymbolHistory, bar_size_s, duration_s
from engine.paper.live_bars import LIVE_WIDTH_S
from engine.paper.place_order import ContractKey
from engine.paper.session import Session
from engine.paper.watch import session_hours

if TYPE_CHECKING:
    from engine.paper.server import Gateway

MAX_HISTORICAL_TICKS = 1000


def _symbol(gw: Gateway, client: Session, req_id: int, key: ContractKey) -> int | None:
    """Symbol index of a contract, or None after the error was sent."""
    try:
        return gw.catalog.find(key).index
    except UnknownContract as error:
        client.error(req_id, error.code, str(error))
        return None


def invalid(client: Session, req_id: int, cause: str) -> None:
    """A request that makes no sense: error 321."""
    client.error(req_id, 321, f"Error validating request.-'request' : cause - {cause}")


def parse_time(text: str, now_s: float) -> float:
    """UTC seconds of ``YYYYMMDD HH:MM:SS [zone]`` or ``YYYYMMDD-HH:MM:SS`` (UTC); empty is now. Raises ValueError."""
    if not text:
        return now_s
    parts = text.split()
    zone: Any = NEW_YORK
    if len(parts) == 1 and "-" in text:
        zone, stamp = UTC, text.replace("-", " ", 1)
    else:
        stamp = " ".join(parts[:2])
        if len(parts) > 2:
            try:
                zone = ZoneInfo(parts[2])
            except (ZoneInfoNotFoundError, ValueError):
                raise ValueError(f"time zone {parts[2][:30]!r} is unknown") from None
    if " " not in stamp:
        stamp += " 00:00:00"
    try:
        return datetime.strptime(stamp, "%Y%m%d %H:%M:%S").replace(tzinfo=zone).timestamp()
    except ValueError:
        raise ValueError(f"time {text[:30]!r}, expected YYYYMMDD HH:MM:SS with an optional zone") from None


# Contracts.


def contract_details(gw: Gateway, client: Session, request: m.ContractRequest) -> None:
    try:
        instrument = gw.catalog.find(request.contract)
    except UnknownContract as error:
        client.error(request.req_id, error.code, str(error))
        return
    today = datetime.fromtimestamp(gw.wall_s(), NEW_YORK).date()
    exchange = request.contract.exchange
    hours = session_hours(today, gw.config.hours)
    client.send(out.contract_details(client.version, request.req_id, instrument, exchange, hours))
    client.send(out.contract_details_end(request.req_id))


def matching_symbols(gw: Gateway, client: Session, request: m.Named) -> None:
    client.send(out.symbol_samples(client.version, request.req_id, gw.catalog.matching(request.name)))


def market_rule(gw: Gateway, client: Session, request: m.Numbered) -> None:
    steps = MARKET_RULES.get(request.value)
    if steps is None:
        invalid(client, out.SYSTEM, f"market rule {request.value} is unknown, allowed are {sorted(MARKET_RULES)}")
        return
    client.send(out.market_rule(request.value, steps))


def depth_exchanges(gw: Gateway, client: Session, request: m.Bare) -> None:
    client.send(out.depth_exchanges(DEPTH_VENUES))


def smart_components(gw: Gateway, client: Session, request: m.Named) -> None:
    client.send(out.smart_components(request.req_id, SMART_COMPONENTS))


def sec_def_opt_params(gw: Gateway, client: Session, request: m.ById) -> None:
    # No options are simulated: an empty list is the truthful answer.
    client.send(out.sec_def_opt_params_end(request.req_id))


# Market data.


def mkt_data(gw: Gateway, client: Session, request: m.MktData) -> None:
    symbol = _symbol(gw, client, request.req_id, request.contract)
    if symbol is None:
        return
    generic = request.generic_ticks
    wrong = generic_ticks.unknown(generic)
    if wrong:
        legal = f"Legal ones for (STK) are: {generic_ticks.legal()}"
        invalid(client, request.req_id, f"Incorrect generic tick list of {','.join(wrong)[:80]}.  {legal}")
        return
    if generic and request.snapshot:
        cause = "Snapshot market data subscription is not applicable to generic ticks"
        invalid(client, request.req_id, cause)
        return
    if not gw.feed.tickers.subscribe(client, request.req_id, symbol, generic, request.snapshot):
        return
    dead = generic_ticks.without_data(generic)
    if dead:
        text = "Part of requested market data is not subscribed. Subscription-independent ticks are still active."
        client.error(request.req_id, 10090, f"{text} Not simulated: {','.join(dead)}")


def cancel_mkt_data(gw: Gateway, client: Session, request: m.ById) -> None:
    gw.feed.tickers.unsubscribe(client, request.req_id)


def mkt_depth(gw: Gateway, client: Session, request: m.MktDepth) -> None:
    symbol = _symbol(gw, client, request.req_id, request.contract)
    if symbol is not None:
        gw.feed.subscribe_depth(client, request.req_id, symbol, request.rows, request.smart)


def cancel_mkt_depth(gw: Gateway, client: Session, request: m.ById) -> None:
    gw.feed.depth.unsubscribe(client, request.req_id)


def tick_by_tick(gw: Gateway, client: Session, request: m.TickByTick) -> None:
    symbol = _symbol(gw, client, request.req_id, request.contract)
    if symbol is None:
        return
    if not 0 <= request.count <= MAX_HISTORICAL_TICKS:
        invalid(client, request.req_id, f"number of ticks {request.count} is outside 0..{MAX_HISTORICAL_TICKS}")
        return
    past = b""
    if request.count:
        what = {"BidAsk": "BID_ASK", "MidPoint": "MIDPOINT"}.get(request.tick_type, "TRADES")
        venue = gw.catalog[symbol].primary_exchange
        kind, rows = tick_rows(gw.feed.history[symbol], what, 0.0, float("inf"), venue)
        past = out.historical_ticks(kind, request.req_id, rows[-request.count :])
    gw.feed.prints.subscribe(client, request.req_id, symbol, request.tick_type, request.ignore_size, past)


def cancel_tick_by_tick(gw: Gateway, client: Session, request: m.ById) -> None:
    gw.feed.prints.unsubscribe(client, request.req_id)


def real_time_bars(gw: Gateway, client: Session, request: m.RealTimeBars) -> None:
    symbol = _symbol(gw, client, request.req_id, request.contract)
    if symbol is None:
        return
    if request.what not in SERIES:
        invalid(client, request.req_id, f"whatToShow {request.what[:20]!r}, allowed are {', '.join(SERIES)}")
        return
    if request.width_s != LIVE_WIDTH_S:
        invalid(client, request.req_id, f"bar size {request.width_s}, allowed is {LIVE_WIDTH_S}")
        return
    gw.bars.subscribe_live(client, request.req_id, symbol, request.what, gw.session_filter(request.use_rth))


def cancel_bars(gw: Gateway, client: Session, request: m.ById) -> None:
    gw.bars.unsubscribe(client, request.req_id)


# History.


def _no_data(client: Session, req_id: int) -> None:
    client.error(req_id, 162, "Historical Market Data Service error message:HMDS query returned no data")


def _series(what: str) -> str:
    """The series that a whatToShow means: nothing here is ever split, so that adjusted trades are trades."""
    return "TRADES" if what == "ADJUSTED_LAST" else what


def historical_data(gw: Gateway, client: Session, request: m.HistoricalData) -> None:
    symbol = _symbol(gw, client, request.req_id, request.contract)
    if symbol is None:
        return
    what = _series(request.what)
    try:
        width_s, span_s = bar_size_s(request.bar_size), duration_s(request.duration)
        end_s = parse_time(request.end, gw.wall_s())
        allowed = SERIES if request.keep_up_to_date else HISTORICAL
        if what not in allowed:
            raise ValueError(f"whatToShow {request.what[:20]!r}, allowed are {', '.join(allowed)}")
        if request.keep_up_to_date and width_s < LIVE_WIDTH_S:
            raise ValueError(f"bar size {request.bar_size!r} with keepUpToDate, allowed are 5 secs and more")
        if request.keep_up_to_date and request.end:
            raise ValueError(f"endDateTime {request.end[:30]!r} with keepUpToDate, allowed is an empty one")
    except ValueError as error:
        invalid(client, request.req_id, str(error))
        return
    within = gw.session_filter(request.use_rth)
    bars = gw.feed.history[symbol].bars(what, width_s, end_s - span_s, end_s, within) if gw.history_up else []
    if not bars and (not request.keep_up_to_date or not gw.history_up):
        _no_data(client, request.req_id)
        return
    rows = [(bar_stamp(start, width_s, request.date_format), _visible(what, bar)) for start, bar in bars]
    first, last = (
        f"{datetime.fromtimestamp(s, NEW_YORK):%Y%m%d %H:%M:%S} {TIME_ZONE}" for s in (end_s - span_s, end_s)
    )
    client.send(out.historical_data(request.req_id, first, last, rows))
    if request.keep_up_to_date:
        gw.bars.subscribe_update(client, request.req_id, symbol, what, width_s, request.date_format, within)


def _visible(what: str, bar: Bar) -> Bar:
    """Quote bars carry -1 for what only trades have."""
    return bar if what == "TRADES" else (*bar[:4], -1.0, -1.0, -1)


def bar_stamp(start_s: int, width_s: int, date_format: int) -> str:
    """Time of a bar: epoch seconds for format 2, a date for daily bars, local time with its zone otherwise."""
    if date_format == 2:
        return str(start_s)
    local = datetime.fromtimestamp(start_s, NEW_YORK)
    return f"{local:%Y%m%d}" if width_s >= 86_400 else f"{local:%Y%m%d %H:%M:%S} {TIME_ZONE}"


def head_timestamp(gw: Gateway, client: Session, request: m.HeadTimestamp) -> None:
    symbol = _symbol(gw, client, request.req_id, request.contract)
    if symbol is None:
        return
    what = _series(request.what)
    if what not in HISTORICAL:
        invalid(client, request.req_id, f"whatToShow {request.what[:20]!r}, allowed are {', '.join(HISTORICAL)}")
        return
    start_s = gw.feed.history[symbol].begins_s(what, gw.session_filter(request.use_rth)) if gw.history_up else None
    if start_s is None:
        _no_data(client, request.req_id)
        return
    client.send(out.head_timestamp(request.req_id, start_s, request.date_format))


def historical_ticks(gw: Gateway, client: Session, request: m.HistoricalTicks) -> None:
    symbol = _symbol(gw, client, request.req_id, request.contract)
    if symbol is None:
        return
    if not gw.history_up:
        _no_data(client, request.req_id)
        return
    if not 1 <= request.count <= MAX_HISTORICAL_TICKS:
        invalid(client, request.req_id, f"number of ticks {request.count} is outside 1..{MAX_HISTORICAL_TICKS}")
        return
    try:
        start_s = parse_time(request.start, 0.0)
        end_s = parse_time(request.end, float("inf"))
    except ValueError as error:
        invalid(client, request.req_id, str(error))
        return
    venue = gw.catalog[symbol].primary_exchange
    kind, rows = tick_rows(gw.feed.history[symbol], request.what, start_s, end_s, venue)
    within = gw.session_filter(request.use_rth)
    if within is not None:
        rows = [row for row in rows if within(float(str(row[0])))]
    if request.ignore_size and request.what == "BID_ASK":
        rows = [row for n, row in enumerate(rows) if n == 0 or row[2:4] != rows[n - 1][2:4]]
    if kind == 0:
        allowed = "TRADES, BID_ASK, MIDPOINT"
        invalid(client, request.req_id, f"whatToShow {request.what[:20]!r}, allowed are {allowed}")
        return
    chosen = rows[: request.count] if request.start else rows[-request.count :]
    client.send(out.historical_ticks(kind, request.req_id, chosen))


def tick_rows(
    history: SymbolHistory, what: str, start_s: float, end_s: float, venue: str
) -> tuple[int, list[tuple[object, ...]]]:
    """Message id (0 for an unknown ``what``) and rows of the ticks within [start_s, end_s]. Pure."""
    if what == "TRADES":
        return 98, [(t, 0, p, s, venue, "") for t, p, s in history.trades if start_s <= t <= end_s]
    quotes = [q for q in history.quotes if start_s <= q[0] <= end_s]
    if what == "BID_ASK":
        return 97, [(t, 0, bid, ask, bid_size, ask_size) for t, bid, ask, bid_size, ask_size in quotes]
    if what == "MIDPOINT":
        return 96, [(q[0], 0, (q[1] + q[2]) / 2, 0.0) for q in quotes]
    return 0, []
