"""The state of the instance in words and numbers: what `/api/state`, the stream and `l2dash status` all show.

``View`` reads cells and counters and never writes. ``refresh`` copies the fast cells once; everything else is a
function of those copies, so that one frame never mixes two moments of one cell. Numbers that are not known are null.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from engine import topology
from engine.cockpit import link, market
from engine.cockpit.badges import guardrails
from engine.cockpit.words import block_words, display, iso, name_of, number, text_of
from engine.config import Config
from engine.domain.codes import BlockReason, FlattenState, Mode, OrderState, Owner, Source, TradingState
from engine.domain.instruments import Instrument
from engine.risk.stops import Stops, effective
from engine.runtime.clock import Clock
from shm.cell import CellReader
from shm.counters import Counters

WATCHDOG_SILENT_NS = 1_000_000_000
Json = dict[str, Any]


class Attachment(Protocol):
    """What a view needs: any ``engine.runtime.context.Context``."""

    config: Config
    instruments: tuple[Instrument, ...]
    clock: Clock
    replay: bool

    def cell_reader(self, name: str) -> CellReader: ...
    def counters_of(self, service: str) -> Counters: ...


class View:
    """Reads one instance. Call ``refresh(now_ns)`` before reading sections."""

    def __init__(self, ctx: Attachment) -> None:
        self.config = ctx.config
        self.instruments = ctx.instruments
        self.clock = ctx.clock
        self.replay = ctx.replay
        self._ctx = ctx
        cells = (
            "account",
            "positions",
            "broker",
            "book",
            "model",
            "guardrails",
            "flatten",
            "lease",
            "arm",
            *topology.STOP_CELLS,
        )
        self.cells: dict[str, CellReader] = {name: ctx.cell_reader(name) for name in cells}
        self.now_ns = 0

    def refresh(self, now_ns: int) -> None:
        """Copy every fast cell. About 3 µs a cell."""
        self.now_ns = now_ns
        symbols = len(self.instruments)
        for reader in self.cells.values():
            for i in range(min(reader.count, symbols)):
                reader.read(i)

    def value(self, cell: str, index: int = 0) -> Any:
        return self.cells[cell].value[index]

    def known(self, cell: str, index: int = 0) -> bool:
        """Has this cell ever been written?"""
        return bool(self.cells[cell].version[index])

    def iso(self, at_ns: int) -> str | None:
        """Wall time of a monotonic time as text; None for 0."""
        return iso(self.clock.wall_ns(at_ns)) if at_ns > 0 else None

    def age_s(self, at_ns: int) -> float | None:
        return round(max(0, self.now_ns - at_ns) / 1e9, 3) if at_ns > 0 else None

    def symbols_of(self, mask: int) -> list[str]:
        return [display(i.symbol) for i in self.instruments if mask >> i.index & 1]

    def index_of(self, symbol: str) -> int | None:
        """Symbol number of a name, as the broker or as people write it."""
        for i in self.instruments:
            if symbol in (i.symbol, display(i.symbol)):
                return i.index
        return None

    # -- sections -----------------------------------------------------------------------------------------------

    @property
    def mode(self) -> str:
        return "REPLAY" if self.replay else self.config.instance.mode.upper()

    def stops(self) -> Stops:
        readers = [self.cells[name] for name in topology.STOP_CELLS]
        return effective([r.value[0] for r in readers], [bool(r.torn[0]) for r in readers])

    def watchdog_silent_ns(self) -> int:
        """How long the watchdog has published nothing beyond its allowance; 0 while it is in time."""
        age = self.now_ns - int(self.value("guardrails")["evaluated_ns"])
        return age if age > WATCHDOG_SILENT_NS or not self.known("guardrails") else 0

    def trading_state(self) -> Json:
        """The state that the gate would apply now, with every reason. An expired lease blocks by itself."""
        stops, reasons, g = self.stops(), [], self.value("guardrails")
        state = stops.state
        mask = stops.block_reasons | (int(g["block_reasons"]) if not self.watchdog_silent_ns() else 0)
        if stops.kill:
            latched = [
                name for i, name in enumerate(BADGE_NAMES) if (stops.kill_reason | int(g["kill_reasons"])) >> i & 1
            ]
            reasons.append(
                f"KILL latched by {', '.join(latched) or 'a stop cell'}; released by an operator's reset alone"
            )
        if stops.pause:
            reasons.append("paused; released by resume")
        lease = self.value("lease")
        if int(lease["expires_ns"]) < self.now_ns or int(lease["owner"]) != Owner.BRIDGE:
            mask |= 1 << BlockReason.LEASE_EXPIRED
            if state == TradingState.ACTIVE:
                state = TradingState.BLOCKED
        for name in topology.STOP_CELLS:
            if self.cells[name].torn[0]:
                reasons.append(f"the stop cell of {name.removeprefix('stop.')} is torn: its writer died while writing")
        reasons += block_words(mask)
        blocked = self.symbols_of(stops.symbol_block)
        if blocked:
            reasons.append(f"blocked by symbol: {', '.join(blocked)}")
        return {
            "state": state.name,
            "reasons": reasons,
            "blocked_symbols": blocked,
            "killed_at": self.iso(int(g["killed_ns"])),
        }

    def guardrails(self) -> list[Json]:
        return guardrails(self)

    def account(self) -> Json:
        a, g, c = self.value("account"), self.value("guardrails"), self.config.guardrails
        start, peak, equity = float(g["day_start_usd"]), float(g["peak_usd"]), float(g["equity_usd"])
        below = [start - equity] if c.drawdown_from != "peak" else []
        below += [peak - equity] if c.drawdown_from != "start" else []
        marked = self.known("guardrails")
        limit = min(c.drawdown_usd, start * c.drawdown_pct / 100.0) if marked and start > 0 else c.drawdown_usd
        seen = self.known("account")
        return {
            "account": text_of(a["account"]) or None,
            "ready": bool(a["ready"]),
            "matches_mode": bool(a["matches"]),
            "mode": name_of(Mode, int(a["mode"])) if a["mode"] else None,
            "net_liquidation_usd": number(float(a["net_liquidation_usd"])) if seen else None,
            "buying_power_usd": number(float(a["buying_power_usd"])) if seen else None,
            "equity_usd": number(equity) if marked else None,
            "day_start_usd": number(start) if marked else None,
            "peak_usd": number(peak) if marked else None,
            "day_pnl_usd": number(float(g["day_pnl_usd"])) if marked else None,
            "drawdown_usd": number(max(0.0, *below)) if marked else None,
            "drawdown_limit_usd": limit,
            "gross_usd": number(float(g["gross_usd"])) if marked else None,
            "net_usd": number(float(g["net_usd"])) if marked else None,
            "max_position_usd": self.config.limits.max_position_usd,
            "realized_pnl_usd": number(float(a["realized_pnl_usd"])) if seen else None,
            "commissions_usd": number(float(a["commissions_usd"])) if seen else None,
            "executions": int(a["executions"]),
            "index_move_pct": number(float(g["index_move_pct"])) if marked else None,
        }

    def mid(self, index: int) -> float | None:
        book = self.value("book", index)
        if not self.known("book", index):
            return None
        mid = float(book["mid"])
        if not (mid > 0):
            mid = float(book["last_price"])
        return mid if mid > 0 and np.isfinite(mid) else None

    def positions(self) -> list[Json]:
        """Every tradable symbol with its exposure, flat ones included."""
        return [self._position(i) for i in self.instruments if i.tradable]

    def _position(self, instrument: Instrument) -> Json:
        p, mid = self.value("positions", instrument.index), self.mid(instrument.index)
        qty, cost = float(p["qty"]), float(p["avg_cost"])
        unrealized = None if mid is None and qty else (qty * ((mid or 0.0) - cost) if qty else 0.0)
        exposure = None if mid is None and qty else qty * (mid or 0.0)
        limit = self.config.limits.breaker_symbol_usd
        return {
            "symbol": display(instrument.symbol),
            "qty": qty,
            "avg_cost": number(cost) if qty else None,
            "mid": mid,
            "exposure_usd": exposure,
            "limit_usd": limit,
            "used": None if exposure is None else abs(exposure) / limit,
            "unrealized_usd": None if unrealized is None else number(unrealized),
            "realized_usd": number(float(p["realized_pnl_usd"])),
            "commissions_usd": number(float(p["commissions_usd"])),
            "working_buy": float(p["working_buy_qty"]),
            "working_sell": float(p["working_sell_qty"]),
            "unknown_buy": float(p["unknown_buy_qty"]),
            "unknown_sell": float(p["unknown_sell_qty"]),
            "working_orders": int(p["working_orders"]),
            "broker_qty": number(float(p["broker_qty"])),
            "mismatch_since": self.iso(int(p["mismatch_since_ns"])),
            "executions": int(p["executions"]),
        }

    def quotes(self) -> list[Json]:
        return market.quotes(self)

    def book(self, index: int) -> Json:
        return market.book(self, index)

    def models(self) -> list[Json]:
        return market.models(self)

    def connectivity(self) -> Json:
        return link.connectivity(self)

    def flatten(self) -> Json:
        f = self.value("flatten")
        cause, sent, flat = int(f["cause_ns"]), int(f["sent_ns"]), int(f["flat_ns"])
        return {
            "flatten_id": str(int(f["flatten_id"])) if f["flatten_id"] else None,
            "state": name_of(FlattenState, int(f["state"])),
            "running": self.flattening(),
            "started": self.iso(int(f["started_ns"])),
            "sent_ms": round((sent - cause) / 1e6, 3) if sent > 0 and cause > 0 else None,
            "flat_ms": round((flat - cause) / 1e6, 3) if flat > 0 and cause > 0 else None,
            "rounds": int(f["rounds"]),
            "remaining": self.symbols_of(int(f["remaining"])),
            "open_orders": int(f["open_orders"]),
            "source": name_of(Source, int(f["source"])) if f["source"] else None,
        }

    def flattening(self) -> bool:
        return int(self.value("flatten")["state"]) not in (FlattenState.IDLE, FlattenState.FLAT)

    def recovery(self) -> Json:
        """What stands between KILL and its release."""
        g = self.value("guardrails")
        cooling = int(g["cooling_until_ns"])
        return {
            "flat_since": self.iso(int(g["flat_since_ns"])),
            "cooling_s": round(max(0, cooling - self.now_ns) / 1e9, 1) if cooling else 0.0,
            "day_locked": bool(g["day_locked"]),
            "all_ok": bool(g["all_ok"]),
            "incident_id": str(int(g["incident_id"])) if g["incident_id"] else None,
        }

    def arm(self) -> Json:
        a = self.value("arm")
        return {
            "armed": int(a["armed"]),
            "since": self.iso(int(a["armed_since_ns"])),
            "stream_gone_s": self.age_s(int(a["stream_gone_since_ns"])),
        }

    def fixed(self) -> Json:
        """What does not change while the instance lives."""
        lim = self.config.limits
        return {
            "mode": self.mode,
            "instance": self.config.instance.name,
            "instruments": [
                {"symbol": display(i.symbol), "tradable": i.tradable, "tick_size": i.tick_size, "name": i.long_name}
                for i in self.instruments
            ],
            "limits": {
                "order_qty": lim.order_qty,
                "order_notional_usd": lim.order_notional_usd,
                "collar_pct": lim.collar_pct,
                "symbol_usd": lim.gate_symbol_usd,
                "max_position_usd": lim.max_position_usd,
                "confidence": self.config.guardrails.confidence,
            },
        }

    def clock_section(self) -> Json:
        wall = self.clock.wall_ns(self.now_ns)
        return {
            "server_ms": wall // 1_000_000,
            "server": iso(wall),
            "session_date": int(self.value("guardrails")["session_date"]),
        }

    def state(self) -> Json:
        """Everything that comes from cells; orders, fills, latency and services are added by their owners."""
        return {
            **self.fixed(),
            "clock": self.clock_section(),
            "trading_state": self.trading_state(),
            "guardrails": self.guardrails(),
            "account": self.account(),
            "positions": self.positions(),
            "quotes": self.quotes(),
            "models": self.models(),
            "connectivity": self.connectivity(),
            "flatten": self.flatten(),
            "recovery": self.recovery(),
            "arm": self.arm(),
        }


BADGE_NAMES = ("SPREAD", "POS", "COOL", "LAT", "DD", "KILL", "CONF", "DRIFT")
OPEN_STATES = (
    OrderState.PENDING,
    OrderState.SENT,
    OrderState.UNKNOWN,
    OrderState.WORKING,
    OrderState.PARTIAL,
    OrderState.PENDING_CANCEL,
)
