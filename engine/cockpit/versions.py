"""Model versions as the pages show them: what serves, what was measured forward in time, what the gate said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.cockpit.words import iso
from engine.model.bundle import Entry, Registry

MOST = 8


def model_versions(state_dir: Path) -> list[dict[str, Any]]:
    """Newest first. Reads files of a few KB each: call it off the event loop."""
    return [_row(entry) for entry in Registry(state_dir / "models").list()[:MOST]]


def _row(entry: Entry) -> dict[str, Any]:
    metrics = entry.metrics
    gate = metrics.get("gate", {})
    return {
        "version": entry.version,
        "serves": "current" if entry.current else "previous" if entry.previous else "",
        "provenance": entry.provenance,
        "trained": iso(entry.created_wall_ns),
        "error": entry.error,
        "holdout": metrics.get("holdout"),
        "incumbent": metrics.get("incumbent"),
        "walk_forward": metrics.get("walk_forward", []),
        "worth": metrics.get("worth"),
        "note": metrics.get("note", ""),
        "promoted": gate.get("promoted"),
        "reasons": gate.get("reasons", []),
    }
