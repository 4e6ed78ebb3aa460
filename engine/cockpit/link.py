"""The broker's side as people look at it: link, round trips, lease, what is open there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cockpit.words import LINK_WORDS, name_of
from engine.domain.codes import LinkState, Owner
from shm.layouts import RTT_SAMPLES

if TYPE_CHECKING:
    from engine.cockpit.view import View

Json = dict[str, Any]


def connectivity(view: View) -> Json:
    b, lease = view.value("broker"), view.value("lease")
    count = min(int(b["rtt_count"]), RTT_SAMPLES)
    samples = [round(float(ns) / 1e6, 3) for ns in b["rtt_ns"] if ns > 0][:RTT_SAMPLES] if count else []
    link = int(b["link"])
    last = int(b["rtt_ns"][(int(b["rtt_count"]) - 1) % RTT_SAMPLES]) if count else 0
    return {
        "link": name_of(LinkState, link),
        "words": LINK_WORDS.get(LinkState(link) if link <= max(LinkState) else LinkState.DOWN, "unknown"),
        "down_since": view.iso(int(b["down_since_ns"])),
        "down_s": view.age_s(int(b["down_since_ns"])),
        "last_message_s": view.age_s(int(b["last_message_ns"])),
        "rtt_ms": round(last / 1e6, 3) if last else None,
        "rtt_samples_ms": samples,
        "farms_down": int(b["farms_down"]),
        "reconciled": bool(b["reconciled"]),
        "leaving": bool(b["leaving"]),
        "reconnects": int(b["reconnects"]),
        "working_orders": int(b["working_orders"]),
        "unknown_orders": int(b["unknown_orders"]),
        "messages_sent": int(b["messages_sent"]),
        "order_efficiency": round(int(b["order_requests"]) / (int(b["orders_executed"]) + 1), 2),
        "order_efficiency_limit": view.config.limits.order_efficiency,
        "server_version": int(b["server_version"]),
        "clock_offset_ms": round(int(b["clock_offset_ns"]) / 1e6, 3),
        "foreign_positions": int(b["foreign_positions"]),
        "foreign_orders": int(b["foreign_orders"]),
        "gateway": f"{view.config.gateway.host}:{view.config.gateway.port}",
        "owner": name_of(Owner, int(lease["owner"])),
        "epoch": int(lease["epoch"]),
        "lease_ms": round((int(lease["expires_ns"]) - view.now_ns) / 1e6, 1) if lease["expires_ns"] else None,
    }
