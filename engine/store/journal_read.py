"""Reading the journal: what the command line and the cockpit show of orders, fills, positions, audit and incidents.

Every method returns plain dictionaries with words instead of codes. ``since`` is a row id: only what is newer; 0 means
the newest ``limit``. Lists are in ascending order of ``id``.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any

from engine.domain.codes import (
    Badge,
    BadgeState,
    CommandKind,
    EventKind,
    ExecFlag,
    IntentKind,
    OrderState,
    OrderType,
    Refusal,
    Severity,
    Side,
    Source,
    TimeInForce,
)
from engine.store.fold import Position, fold_orders, positions
from engine.store.journal import Verdict, read_only, verify
from engine.store.rows import TABLES

Record = dict[str, Any]
INCIDENT_BEFORE_NS = 30 * 1_000_000_000
INCIDENT_AFTER_NS = 600 * 1_000_000_000

_FILLS = """
WITH ranked AS (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY exec_base ORDER BY revision DESC, id) AS place,
           COUNT(*) OVER (PARTITION BY exec_base) AS reports, MAX(id) OVER (PARTITION BY exec_base) AS newest
    FROM executions WHERE kind IN (1, 2) {where}
)
SELECT f.id AS id, f.newest AS newest_id, f.wall_ns, f.day, f.exec_id, f.revision, f.symbol, f.side, f.source, f.flags,
       f.order_id, f.perm_id, f.intent_id, f.qty, f.price, f.cum_qty, f.exec_wall_ns, f.reports,
       COALESCE((SELECT c.commission_usd FROM executions c WHERE c.exec_base = f.exec_base AND c.commission_usd
                 IS NOT NULL ORDER BY c.kind = 3 DESC, c.id DESC LIMIT 1), 0.0) AS commission_usd,
       (SELECT c.realized_pnl_usd FROM executions c WHERE c.exec_base = f.exec_base AND c.realized_pnl_usd
                 IS NOT NULL ORDER BY c.kind = 3 DESC, c.id DESC LIMIT 1) AS realized_pnl_usd
FROM ranked f WHERE place = 1 AND newest > ? ORDER BY newest {order} LIMIT ?
"""


def word(kind: type[IntEnum], code: Any) -> str:
    """Name of a code, "" for none, the number for an unknown one."""
    if code is None:
        return ""
    try:
        return kind(int(code)).name
    except ValueError:
        return str(code)


class JournalReader:
    """Read-only access; opens the file at first use and keeps it open. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._db: sqlite3.Connection | None = None

    def _rows(self, sql: str, arguments: Iterable[Any] = ()) -> list[Record]:
        if self._db is None:
            self._db = self._stack.enter_context(read_only(self.path))
            self._db.row_factory = sqlite3.Row
        return [dict(row) for row in self._db.execute(sql, tuple(arguments))]

    def close(self) -> None:
        self._db = None
        self._stack.close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def head_id(self) -> int:
        """Id of the newest row, 0 if there is none."""
        rows = self._rows("SELECT value FROM meta WHERE key = 'head_id'")
        return int(rows[0]["value"]) if rows else 0

    def counts(self) -> dict[str, int]:
        """Rows per table."""
        return {t: int(self._rows(f"SELECT COUNT(*) AS n FROM {t}")[0]["n"]) for t in TABLES}

    def verify(self) -> Verdict:
        """Check the whole hash chain."""
        return verify(self.path)

    def _table(
        self, table: str, since: int, limit: int, where: str = "", arguments: Iterable[Any] = ()
    ) -> list[Record]:
        names = ", ".join(n for n, _ in TABLES[table] if n != "raw")
        order = "ASC" if since else "DESC"
        rows = self._rows(f"SELECT id, {names} FROM {table} WHERE id > ? ORDER BY id {order} LIMIT ?", (since, limit))
        return rows if since else rows[::-1]

    def orders(self, since: int = 0, limit: int = 200, day: int = 0) -> list[Record]:
        """One entry per order with its newest state; ``id`` is the newest row about it. Cancel requests don't show."""
        where, arguments = ("AND day = ?", (day,)) if day else ("", ())
        order = "ASC" if since else "DESC"
        recent = self._rows(
            f"SELECT DISTINCT intent_id FROM (SELECT intent_id, id FROM orders WHERE id > ? {where} AND intent_id != 0 "
            f"ORDER BY id {order} LIMIT ?)",
            (since, *arguments, limit * 20),
        )
        ids = [int(r["intent_id"]) for r in recent]
        found: list[Record] = []
        for at in range(0, len(ids), 500):
            part = ids[at : at + 500]
            found += self._rows(
                f"SELECT * FROM orders WHERE intent_id IN ({', '.join('?' * len(part))}) ORDER BY id", part
            )
        folded = [
            order
            | {
                "filled": order["filled_qty"],
                "state": word(OrderState, order["state"]),
                "refusal": word(Refusal, order["refusal"]),
                "source": word(Source, order["source"]),
                "side": word(Side, order["side"]),
                "order_type": word(OrderType, order["order_type"]),
                "tif": word(TimeInForce, order["tif"]),
                "intent_kind": word(IntentKind, order["intent_kind"]),
            }
            for order in fold_orders(found)
        ]
        return folded[:limit] if since else folded[-limit:]

    def fills(self, since: int = 0, limit: int = 200, day: int = 0) -> list[Record]:
        """One entry per execution: the newest revision, reported once however often it was read back.

        ``qty`` is unsigned, ``side`` BUY or SELL; ``reports`` counts the records about it, ``id`` is the newest's.
        """
        where = f"AND exec_base IN (SELECT exec_base FROM executions WHERE day = {int(day)})" if day else ""
        sql = _FILLS.format(where=where, order="ASC" if since else "DESC")
        rows = self._rows(sql, (since, limit))
        for row in rows:
            row["id"] = row.pop("newest_id")
            row["side"] = word(Side, row["side"])
            row["source"] = word(Source, row["source"])
            row["flatten"] = bool(int(row["flags"]) & ExecFlag.FLATTEN)
        return rows if since else rows[::-1]

    def positions_from_fills(self, day: int = 0) -> dict[str, Position]:
        """Position, average cost and P&L per symbol that the recorded fills add up to (of one day, or ever)."""
        return positions(self.fills(limit=1 << 31, day=day))

    def net_by_symbol(self) -> tuple[dict[str, float], int]:
        """Signed sum of all fills by symbol, each execution in its newest revision, and the number of executions."""
        rows = self._rows(
            "WITH ranked AS (SELECT symbol, side, qty, ROW_NUMBER() OVER (PARTITION BY exec_base "
            "ORDER BY revision DESC, id) AS place FROM executions WHERE kind IN (1, 2)) "
            "SELECT symbol, SUM(side * qty) AS net, COUNT(*) AS n FROM ranked WHERE place = 1 GROUP BY symbol"
        )
        return {str(r["symbol"]): float(r["net"]) for r in rows}, sum(int(r["n"]) for r in rows)

    def execution_known(self, exec_base: str, before_wall_ns: int) -> bool:
        """Had it been journaled before that moment? A bridge reads back the executions of the day when it starts."""
        test = "SELECT 1 FROM executions WHERE exec_base = ? AND wall_ns < ? LIMIT 1"
        return bool(self._rows(test, (exec_base, before_wall_ns)))

    def audit(self, since: int = 0, limit: int = 200) -> list[Record]:
        """Operator actions (before they are carried out), commands and their results."""
        rows = self._table("audit", since, limit)
        for row in rows:
            row["command"] = word(CommandKind, row["command"]) if row["command"] else ""
            row["source"] = word(Source, row["source"])
        return rows

    def guardrails(self, since: int = 0, limit: int = 200) -> list[Record]:
        """Transitions of badges and stops, with the numbers behind them."""
        rows = self._table("guardrails", since, limit)
        for row in rows:
            badge = row["kind"] == EventKind.GUARDRAIL
            row["badge"] = word(Badge, row["code"]) if badge else ""
            row["state"] = word(BadgeState, row["ref_id"]) if badge else ""
            self._worded(row)
        return rows

    def events(self, since: int = 0, limit: int = 200) -> list[Record]:
        """Alerts, life cycle, connectivity, flatten, reconciliation, models, gaps."""
        rows = self._table("events", since, limit)
        for row in rows:
            self._worded(row)
        return rows

    @staticmethod
    def _worded(row: Record) -> None:
        row["kind"] = word(EventKind, row["kind"])
        row["severity"] = word(Severity, row["severity"])
        row["source"] = word(Source, row["source"])

    def incidents(self, limit: int = 50) -> list[Record]:
        """Rows that began an incident: a tripped badge, a stop or a P1 event, newest last."""
        rows = self._rows(
            "SELECT id, wall_ns, text, symbol, ref_id FROM guardrails WHERE severity >= 3 OR (kind = 3 AND ref_id = ?) "
            "UNION ALL SELECT id, wall_ns, text, symbol, ref_id FROM events WHERE severity >= 3 "
            "ORDER BY id DESC LIMIT ?",
            (int(BadgeState.TRIPPED), limit),
        )
        return rows[::-1]

    def incident(self, incident_id: int) -> list[Record]:
        """Time line of an incident: every row of all tables from 30 s before it until 10 minutes after.

        ``incident_id``: the id of a journal row, or a reference that rows carry (flatten, command, incident). Each
        entry has ``table`` besides its columns. Empty if nothing is known by that id.
        """
        anchors = (
            self._anchor("id = ?", incident_id)
            or self._anchor("ref_id = ? OR ref2 = ?", incident_id, ("events",))
            or self._anchor("ref_id = ?", incident_id, ("audit",))
            or self._anchor("intent_id = ?", incident_id, ("orders",))
        )
        if not anchors:
            return []
        start = min(int(a["wall_ns"]) for a in anchors)
        return self.between(start - INCIDENT_BEFORE_NS, start + INCIDENT_AFTER_NS)

    def between(self, start_wall_ns: int, end_wall_ns: int) -> list[Record]:
        """Every row of all tables in a span of time, by time: ``table`` and its columns, codes as numbers."""
        line: list[Record] = []
        for table in TABLES:
            names = ", ".join(n for n, _ in TABLES[table] if n != "raw")
            line += [
                {"table": table, **row}
                for row in self._rows(
                    f"SELECT id, {names} FROM {table} WHERE wall_ns BETWEEN ? AND ? ORDER BY id",
                    (start_wall_ns, end_wall_ns),
                )
            ]
        return sorted(line, key=lambda r: (r["wall_ns"], r["id"]))

    def stops(self) -> list[Record]:
        """Every stop and release ever, by time; codes as numbers."""
        return self._rows(
            "SELECT id, wall_ns, code, source, ref_id, severity, text FROM guardrails WHERE kind = ? ORDER BY id",
            (int(EventKind.STOP),),
        )

    def flattens(self) -> list[Record]:
        """Every word of a flatten ever, by time; ``ref_id`` is the flatten's id, codes as numbers."""
        return self._rows(
            "SELECT id, wall_ns, code, source, ref_id, severity, text FROM events WHERE kind = ? ORDER BY id",
            (int(EventKind.FLATTEN),),
        )

    def wall_of(self, number: int) -> int | None:
        """When the row of this id, or the first that carries it as its reference, was written; None if none does."""
        anchors = self._anchor("id = ?", number) or self._anchor(
            "ref_id = ?", number, ("guardrails", "events", "audit")
        )
        return min(int(a["wall_ns"]) for a in anchors) if anchors else None

    def _anchor(self, test: str, value: int, tables: Iterable[str] = tuple(TABLES)) -> list[Record]:
        found: list[Record] = []
        for table in tables:
            found += self._rows(
                f"SELECT wall_ns FROM {table} WHERE {test} ORDER BY id LIMIT 1", (value,) * test.count("?")
            )
        return found
