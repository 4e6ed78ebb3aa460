"""The report of an incident over HTTP, from a journal on disk."""

from __future__ import annotations

import numpy as np

from engine.domain.codes import Badge, BadgeState, EventKind, Severity
from engine.risk.latch import StopEvent
from engine.store.journal import Journal, journal_path
from engine.store.rows import Batch, Names
from shm.layouts import EVENT


def journal_a_kill(state_dir) -> None:
    rows = np.zeros(2, EVENT)
    for row, kind, code, ref, text in (
        (rows[0], EventKind.GUARDRAIL, Badge.POS, BadgeState.TRIPPED, b"POS TRIPPED: AAPL 101,000 above 100,000 USD"),
        (rows[1], EventKind.STOP, StopEvent.KILL, 4_711, b"POS: AAPL 101,000 above 100,000 USD"),
    ):
        row["t_ns"], row["kind"], row["code"], row["ref_id"], row["text"] = 5_000_000_000, kind, code, ref, text
        row["severity"], row["symbol"], row["value"], row["limit"] = Severity.P1, 0, 101_000.0, 100_000.0
        row["qty"] = row["price"] = np.nan
    rows["sequence"] = [0, 1]
    batch = Batch("events.watchdog", 1, rows, 0, 2, 5_000_000_000)
    journal = Journal(journal_path(state_dir))
    journal.append([batch], Names(("AAPL",), 0, lambda _: 20_240_102))
    journal.close()


async def test_report_of_the_newest_incident_as_json_and_as_text(rig) -> None:
    journal_a_kill(rig.cockpit.ctx.config.state_dir)
    status, body = await rig.call("GET", "/api/incident/latest")
    assert status == 200, body
    assert body["causes"][0]["badge"] == "POS"
    assert body["incident_id"] == "4711"
    assert body["left"][0].startswith("NOT confirmed flat")
    status, same = await rig.call("GET", "/api/incident/4711")
    assert same == body
    async with rig.http.get(f"{rig.base}/api/incident/latest?text", headers=rig.bearer) as response:
        text = await response.text()
        assert response.content_type == "text/plain"
    for part in ("What tripped", "101,000.00", "Closing orders", "Left to do"):
        assert part in text


async def test_what_is_no_incident_is_named(rig) -> None:
    status, body = await rig.call("GET", "/api/incident/latest")
    assert (status, body["status"]) == (404, 404)
    status, body = await rig.call("GET", "/api/incident/nonsense")
    assert status == 422
    assert "nonsense" in body["detail"] or "nonsense" in str(body)
    async with rig.http.get(f"{rig.base}/api/incident/latest") as response:
        assert response.status == 401
