"""The state of the instance in words and numbers: what `/api/state`, the stream and `l2dash status` all show.

``View`` reads cells and counters and never writes. ``refresh`` copies the fast cells once; everything else is a
function of those copies, so that one frame never mixes two moments of one cell. Numbers that are not known are null.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from engine import topology
from engine.cockpit.badges import guardrails
from engine.cockpit.words import LINK_WORDS, block_words, display, iso, name_of, number, text_of
from engine.config import Config
from engine.domain.codes import BlockReason, FlattenState, LinkState, Mode, OrderState, Owner, Source, TradingState
from engine.domain.instruments import Instrument
from engine.risk.stops import Stops, effective
from engine.runtime.clock import Clock
from shm.cell import CellReader
from shm.counters import Counters
from shm.layouts import RTT_SAMPLES

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
        """One line per symbol: prices, freshness, session."""
        out = []
        for i in self.instruments:
            b = self.value("book", i.index)
            seen = self.known("book", i.index)
            out.append({
                "symbol": display(i.symbol),
                "tradable": i.tradable,
                "bid": number(float(b["bid_price"][0])) if seen and b["bid_rows"] else None,
                "ask": number(float(b["ask_price"][0])) if seen and b["ask_rows"] else None,
                "mid": self.mid(i.index),
                "last": number(float(b["last_price"])) if seen and b["last_price"] > 0 else None,
                "spread_bps": number(float(b["spread_bps"])) if seen and b["bid_rows"] and b["ask_rows"] else None,
                "fair_value": number(float(b["fair_value"])) if seen and b["fair_value"] > 0 else None,
                "age_s": self.age_s(int(b["t_socket_ns"])) if seen else None,
                "stale_after_s": self.stale_after_s(i),
                "valid": bool(b["valid"]),
                "halted": bool(b["halted"]),
                "session_open": bool(b["session_open"]),
                "updates": int(b["updates"]),
                "traded_qty": number(float(b["traded_qty"])),
            })  # fmt: skip
        return out

    def stale_after_s(self, instrument: Instrument) -> float:
        g = self.config.guardrails
        if not instrument.tradable:
            return g.index_stale_s
        gap = float(self.value("book", instrument.index)["gap_median_ns"]) / 1e9
        return max(g.stale_min_s, g.stale_factor * gap) if np.isfinite(gap) else g.stale_min_s

    def book(self, index: int) -> Json:
        """Depth of one symbol: best first, ``[price, size]`` rows."""
        b = self.value("book", index)
        bids, asks = int(b["bid_rows"]), int(b["ask_rows"])
        return {
            "symbol": display(self.instruments[index].symbol),
            "tick_size": self.instruments[index].tick_size,
            "bids": np.column_stack((b["bid_price"][:bids], b["bid_size"][:bids])).tolist(),
            "asks": np.column_stack((b["ask_price"][:asks], b["ask_size"][:asks])).tolist(),
            "mid": self.mid(index),
            "micro_price": number(float(b["micro_price"])) if b["micro_price"] > 0 else None,
            "fair_value": number(float(b["fair_value"])) if b["fair_value"] > 0 else None,
            "last": number(float(b["last_price"])) if b["last_price"] > 0 else None,
            "valid": bool(b["valid"]),
            "halted": bool(b["halted"]),
            "crossed": bool(b["crossed_since_ns"]),
            "updates": int(b["updates"]),
            "age_s": self.age_s(int(b["t_socket_ns"])),
            "t": self.clock.wall_ns(int(b["t_socket_ns"])) // 1_000_000 if b["t_socket_ns"] else None,
        }

    def models(self) -> list[Json]:
        out = []
        for i in self.instruments:
            if not i.tradable:
                continue
            m = self.value("model", i.index)
            seen, states = self.known("model", i.index), int(m["states"])
            out.append({
                "symbol": display(i.symbol),
                "regime": int(m["regime"]) if seen else None,
                "states": states,
                "probability": [round(float(p), 4) for p in m["probability"][:states]],
                "confidence": number(float(m["confidence"])) if seen else None,
                "confidence_ema": number(float(m["confidence_ema"])) if seen else None,
                "warming": bool(m["warming"]) or not seen,
                "valid": bool(m["valid"]),
                "invalid_share": number(float(m["invalid_share"])),
                "psi": number(float(m["psi"])),
                "expected_move_bps": number(float(m["expected_move_bps"])),
                "bars": int(m["bars"]),
                "model_id": int(m["model_id"]),
                "age_s": self.age_s(int(m["t_ns"])),
            })  # fmt: skip
        return out

    def connectivity(self) -> Json:
        b, lease = self.value("broker"), self.value("lease")
        count = min(int(b["rtt_count"]), RTT_SAMPLES)
        samples = [round(float(ns) / 1e6, 3) for ns in b["rtt_ns"] if ns > 0][:RTT_SAMPLES] if count else []
        link = int(b["link"])
        last = int(b["rtt_ns"][(int(b["rtt_count"]) - 1) % RTT_SAMPLES]) if count else 0
        return {
            "link": name_of(LinkState, link),
            "words": LINK_WORDS.get(LinkState(link) if link <= max(LinkState) else LinkState.DOWN, "unknown"),
            "down_since": self.iso(int(b["down_since_ns"])),
            "down_s": self.age_s(int(b["down_since_ns"])),
            "last_message_s": self.age_s(int(b["last_message_ns"])),
            "rtt_ms": round(last / 1e6, 3) if last else None,
            "rtt_samples_ms": samples,
            "farms_down": int(b["farms_down"]),
            "reconciled": bool(b["reconciled"]),
            "leaving": bool(b["leaving"]),
            "reconnects": int(b["reconnects"]),
            "working_orders": int(b["working_orders"]),
            "unknown_orders": int(b["unknown_orders"]),
            "messages_sent": int(b["messages_sent"]),
            "server_version": int(b["server_version"]),
            "clock_offset_ms": round(int(b["clock_offset_ns"]) / 1e6, 3),
            "foreign_positions": int(b["foreign_positions"]),
            "foreign_orders": int(b["foreign_orders"]),
            "gateway": f"{self.config.gateway.host}:{self.config.gateway.port}",
            "owner": name_of(Owner, int(lease["owner"])),
            "epoch": int(lease["epoch"]),
            "lease_ms": round((int(lease["expires_ns"]) - self.now_ns) / 1e6, 1) if lease["expires_ns"] else None,
        }

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
