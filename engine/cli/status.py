"""``l2dash status``: what runs, what holds, what the badges say, what is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli import show
from engine.cli.settings import json_option, target, target_options

_SERVICES = {
    "name": "service", "state": "state", "pid": "pid", "core": "core", "uptime_s": "up s",
    "heartbeat_age_ms": "beat ms", "lag": "lag", "lost": "lost", "incarnation": "starts", "reason": "",
}  # fmt: skip
_BADGES = {"name": "badge", "state": "state", "value": "value", "limit": "limit", "unit": "unit", "reason": ""}
_POSITIONS = {
    "symbol": "symbol", "qty": "qty", "avg_cost": "cost", "mid": "mid", "exposure_usd": "exposure USD",
    "unrealized_usd": "unrealized USD", "working_orders": "orders",
}  # fmt: skip
_HOPS = {"words": "hop", "service": "service", "count": "samples", "p50_us": "p50 µs", "p90_us": "p90 µs",
         "p99_us": "p99 µs", "p99_9_us": "p99.9 µs"}  # fmt: skip


@click.command()
@target_options
@json_option
@click.option("--latency", is_flag=True, help="percentiles of every hop")
def status(config_file: Path | None, instance: str | None, as_json: bool, latency: bool) -> int:
    """Services, stops, badges, account and positions. Exit 1 if a service is not healthy, 3 if nothing is up."""
    report = read(config_file, instance)
    if as_json:
        show.as_json(report)
    else:
        _print(report, latency)
    return 0 if all(s["healthy"] for s in report["services"]) else 1


def read(config_file: Path | None, instance: str | None) -> dict[str, Any]:
    """One snapshot of the running instance, in the words of `/api/state`. Raises Refused."""
    config = target(config_file, instance)
    from engine.cockpit.services import Services
    from engine.cockpit.view import View
    from engine.runtime.context import Context

    with Context.for_cli(config) as context:
        view, services = View(context), Services(context)
        now_ns = context.clock.now_ns()
        view.refresh(now_ns)
        state = view.state()
        state["services"] = [_with_milliseconds(row) for row in services.rows(now_ns)]
        state["placement"] = "shared" if any(row["host"] for row in state["services"]) else "dedicated"
        state["latency"] = services.latency()
        state["counters"] = {
            name: {counter: c.get(counter) for counter in c.counters} for name, c in services.counters.items()
        }
        return state


def _with_milliseconds(row: dict[str, Any]) -> dict[str, Any]:
    age_s = row["heartbeat_age_s"]
    return {**row, "heartbeat_age_ms": None if age_s is None else round(age_s * 1e3, 1)}


def _together(services: list[dict[str, Any]]) -> str:
    """Which services share a process, in words."""
    guests = [s["name"] for s in services if s["host"]]
    if not guests:
        return ": a process for each service"
    host = next(s["host"] for s in services if s["host"])
    pid = next(s["pid"] for s in services if s["name"] == host)
    return f": {', '.join([host, *guests])} on one thread, pid {pid}"


def _print(report: dict[str, Any], latency: bool) -> None:
    trading, account, link = report["trading_state"], report["account"], report["connectivity"]
    reasons = "; ".join(trading["reasons"])
    click.echo(f"{report['mode']}  {show.styled_state(trading['state'])}  {reasons}".rstrip())
    click.echo(
        f"broker {show.styled_state(link['link'])} {link['gateway']}  round trip {show.cell(link['rtt_ms']) or '-'} ms"
        f"  order efficiency {link['order_efficiency']:.1f} of {link['order_efficiency_limit']:g}"
    )
    if account["equity_usd"] is not None:
        equity, day = show.cell(account["equity_usd"]), show.cell(account["day_pnl_usd"])
        down, limit = show.cell(account["drawdown_usd"]), show.cell(account["drawdown_limit_usd"])
        click.echo(f"account {account['account'] or '-'}  equity {equity}  day {day}  drawdown {down} of {limit} USD")
    click.echo(f"placement {report['placement']}{_together(report['services'])}")
    click.echo()
    show.table(report["services"], _SERVICES)
    click.echo()
    show.table(report["guardrails"], _BADGES)
    click.echo()
    show.table(
        [p for p in report["positions"] if p["qty"] or p["working_orders"]], _POSITIONS, empty="flat, no working orders"
    )
    if latency:
        click.echo()
        show.table(report["latency"], _HOPS)


@click.command()
@target_options
@json_option
def positions(config_file: Path | None, instance: str | None, as_json: bool) -> None:
    """Positions with exposure by symbol, straight from shared memory."""
    rows = read(config_file, instance)["positions"]
    if as_json:
        show.as_json(rows)
        return
    show.table(
        [p for p in rows if p["qty"] or p["working_orders"] or p["executions"]],
        {**_POSITIONS, "limit_usd": "limit USD", "realized_usd": "realized USD", "commissions_usd": "commissions USD"},
        empty="flat, no working orders",
    )
