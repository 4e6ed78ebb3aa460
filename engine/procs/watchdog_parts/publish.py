"""The guardrails cell: what every surface shows."""

from __future__ import annotations

from engine.domain.codes import Badge, BadgeState
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.dd import DdState
from engine.risk.guardrails.facts import Floats
from engine.risk.guardrails.result import BadgeResult
from engine.risk.latch import Latch
from engine.risk.stops import Stops as Effective
from engine.runtime.context import Context


class Publisher:
    """Writes the guardrails cell."""

    def __init__(self, ctx: Context) -> None:
        self._cell = ctx.cell_writer("guardrails")
        self._cell.value[0] = 0

    def publish(
        self, now_ns: int, *, cycles: int, results: dict[Badge, BadgeResult], since: dict[Badge, int], day: DdState,
        totals: Floats, move_pct: float, flat_since_ns: int, cooling_until_ns: int, reasons: int,
        latch: Latch, effective: Effective, day_locked: bool,
    ) -> None:  # fmt: skip
        c = self._cell.value[0]
        c["evaluated_ns"], c["cycles"] = now_ns, cycles
        c["equity_usd"], c["day_start_usd"], c["peak_usd"] = day.equity_usd, day.day.start_usd, day.day.peak_usd
        c["day_pnl_usd"] = day.equity_usd - day.day.start_usd
        c["gross_usd"], c["net_usd"] = totals[k.GROSS_USD], totals[k.NET_USD]
        c["index_move_pct"] = move_pct
        c["flat_since_ns"], c["cooling_until_ns"] = flat_since_ns, cooling_until_ns
        c["block_reasons"], c["killed_ns"] = reasons, latch.kill_id if latch.kill else 0
        c["kill_reasons"] = effective.kill_reason
        c["trading_state"], c["paused"] = int(effective.state), effective.pause
        c["all_ok"] = all(r.state == BadgeState.OK for r in results.values())
        c["day_locked"], c["session_date"], c["incident_id"] = day_locked, day.day.session, latch.incident_id
        badges = c["badges"]
        for badge in Badge:
            result, b = results[badge], badges[badge]
            b["state"], b["tripped"] = int(result.state), bool(effective.kill_reason >> badge & 1)
            b["value"], b["limit"], b["symbols"] = result.value, result.limit, result.symbols
            b["since_ns"], b["evaluated_ns"] = since[badge], now_ns
            b["reason"] = result.reason.encode()[:80].decode(errors="ignore").encode()
        self._cell.publish()
