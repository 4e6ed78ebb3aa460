"""``l2dash preopen``: the list to go through before the session opens. Looks only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from engine.cli import show
from engine.cli.doctor import clock_synchronised, disk, model
from engine.cli.findings import FAIL, OK, WARN, Finding
from engine.cli.settings import json_option, target, target_options


@click.command()
@target_options
@json_option
def preopen(config_file: Path | None, instance: str | None, as_json: bool) -> int:
    """Services, link, account, books, model, stops, positions, day start, disk. Exit 1 while something must be done."""
    from engine.cli.status import read

    config = target(config_file, instance)
    findings = [*judge(read(config_file, instance)), model(config), disk(config), clock_synchronised(config)]
    if as_json:
        show.as_json([asdict(f) for f in findings])
    else:
        show.table(
            [asdict(f) for f in findings], {"check": "check", "status": "status", "found": "found", "fix": "what to do"}
        )
    return 1 if any(f.status == FAIL for f in findings) else 0


def _finding(check: str, good: bool, found: str, fix: str, *, otherwise: str = FAIL) -> Finding:
    return Finding(check, OK, found) if good else Finding(check, otherwise, found, fix)


def judge(state: dict[str, Any]) -> Iterator[Finding]:
    """Findings of one snapshot (the JSON of `l2dash status`)."""
    services, link, account = state["services"], state["connectivity"], state["account"]
    ill = [s["name"] for s in services if not s["healthy"]]
    words = f"not healthy: {', '.join(ill)}" if ill else f"{len(services)} healthy"
    yield _finding("services", not ill, words, "l2dash logs, then l2dash restart")
    words = f"{link['link']}, round trip {show.cell(link['rtt_ms']) or '-'} ms"
    fix = f"check the gateway at {link['gateway']}, then l2dash reconnect"
    yield _finding("broker link", link["link"] == "UP", words, fix)
    words = "done" if link["reconciled"] else "open"
    yield _finding("reconciliation", link["reconciled"], words, "compare positions with the broker's")
    words = f"{link['farms_down']} down"
    yield _finding("data farms", not link["farms_down"], words, "wait, or see the broker's status page")
    words = f"{account['account'] or 'unknown'} in mode {state['mode']}"
    yield _finding(
        "account", account["matches_mode"], words, "gateway.account and the gateway's login must fit the mode"
    )
    start = account["day_start_usd"]
    yield _finding(
        "day start", bool(start), f"{show.cell(start)} USD" if start else "unknown", "wait for account values"
    )
    yield _books(state["quotes"])
    trading = state["trading_state"]
    fix = {"KILLED": "l2dash reset", "PAUSED": "l2dash resume"}.get(trading["state"], "")
    yield _finding("stops", not fix, f"{trading['state']} {'; '.join(trading['reasons'])}".strip(), fix, otherwise=WARN)
    red = [g["name"] for g in state["guardrails"] if g["state"] == "TRIPPED"]
    yield _finding("badges", not red, f"tripped: {', '.join(red)}" if red else "none tripped", "see l2dash status")
    carried = [f"{p['symbol']} {p['qty']:+g}" for p in state["positions"] if p["qty"]]
    words = f"carried over: {', '.join(carried)}" if carried else "flat"
    yield _finding("positions", not carried, words, "intended? otherwise l2dash flatten", otherwise=WARN)


def _books(quotes: list[dict[str, Any]]) -> Finding:
    closed = [q["symbol"] for q in quotes if not q["session_open"]]
    bad = [q["symbol"] for q in quotes if q["session_open"] and q["tradable"] and not q["valid"]]
    if bad:
        fix = "check market-data and depth entitlements, then l2dash reconnect"
        return Finding("books", FAIL, f"not valid: {', '.join(bad)}", fix)
    return Finding("books", OK, f"session closed: {', '.join(closed)}" if closed else "all valid")
