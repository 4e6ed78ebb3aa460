"""Health in the format application/health+json, for load balancers, container engines and people with curl.

Live: this process answers. Ready: every service is READY and the instance may work. All: one check per service, the
broker link, data and disk. KILL, PAUSE and BLOCK are states of trading, not of health: they never fail a check.
"""

from __future__ import annotations

import shutil
from typing import Any

from engine import topology
from engine.cockpit.services import Services
from engine.cockpit.view import View
from engine.cockpit.words import iso
from engine.domain.codes import LinkState
from engine.runtime.release import release

CONTENT = "application/health+json"
_RANK = {"pass": 0, "warn": 1, "fail": 2}


def worst(statuses: list[str]) -> str:
    return max(statuses, key=_RANK.__getitem__, default="pass")


def report(view: View, services: Services) -> dict[str, Any]:
    """The whole report; ``view`` must be fresh."""
    time = iso(view.clock.wall_ns(view.now_ns))
    checks: dict[str, list[dict[str, Any]]] = {}
    statuses = []

    def check(name: str, status: str, value: Any, unit: str, output: str = "", **more: Any) -> None:
        entry = {
            "componentType": more.pop("kind", "component"),
            "observedValue": value,
            "observedUnit": unit,
            "status": status,
            "time": time,
            **more,
        }
        if output:
            entry["output"] = output
        checks.setdefault(name, []).append(entry)
        statuses.append(status)

    for row in services.rows(view.now_ns):
        name, age = row["name"], row["heartbeat_age_s"]
        more = {"componentId": name, "state": row["state"], "pid": row["pid"]}
        check(f"{name}:heartbeat", row["status"], age, "s", row["reason"], **more)
    link = view.connectivity()
    up = link["link"] == LinkState.UP.name
    down = f" for {link['down_s']:.0f} s" if link["down_s"] else ""
    output = "" if up else f"{link['words']}{down}; the bridge reconnects by itself"
    check(
        "broker:link",
        "pass" if up else "warn" if link["link"] == LinkState.SYNCING.name else "fail",
        link["words"],
        "state",
        output,
        kind="datastore",
    )
    if up:
        check("broker:roundTrip", "pass", link["rtt_ms"], "ms", kind="datastore")
    stale = [
        q["symbol"]
        for q in view.quotes()
        if q["session_open"] and not q["halted"] and (q["age_s"] is None or q["age_s"] > q["stale_after_s"])
    ]
    check("marketData:staleSymbols", "warn" if stale else "pass", len(stale), "symbols", ", ".join(stale))
    try:
        usage = shutil.disk_usage(view.config.state_dir)
        low = usage.free < view.config.recorder.min_free_bytes
        check(
            "stateDir:freeSpace",
            "warn" if low else "pass",
            usage.free,
            "bytes",
            "below recorder.min_free_bytes" if low else "",
            kind="system",
        )
    except OSError as error:
        check("stateDir:freeSpace", "fail", None, "bytes", str(error), kind="system")
    state = view.trading_state()
    return {
        "status": worst(statuses),
        "version": "1",
        "releaseId": release(),
        "serviceId": f"l2-dash-{view.config.instance.name}",
        "description": f"L2 DASH {view.mode}",
        "tradingState": state["state"],
        "notes": state["reasons"],
        "output": "; ".join(
            f"{n}: {c['output']}" for n, cs in checks.items() for c in cs if c["status"] == "fail" and "output" in c
        ),
        "checks": checks,
    }


def ready(view: View, services: Services) -> tuple[bool, str]:
    """May the instance be called ready? With the first reason why not."""
    for row in services.rows(view.now_ns):
        if row["name"] != topology.COCKPIT and not row["healthy"]:
            return False, f"{row['name']} is {row['state']}{': ' if row['reason'] else ''}{row['reason']}"
    link = view.connectivity()
    if link["link"] != LinkState.UP.name:
        return False, f"the broker link is {link['words']}"
    if not link["reconciled"]:
        return False, "reconciliation with the broker is open"
    return True, ""
