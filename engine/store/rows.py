"""Journal rows: which record of which ring becomes which row of which table. Pure.

Five tables, all with the columns of ``COMMON`` first: ``orders`` (every intent and every order state), ``executions``,
``audit`` (commands, operator actions, results), ``guardrails`` (badge and stop transitions), ``events`` (the rest:
alerts, life cycle, connectivity, flatten, reconciliation, models, gaps). Codes are stored as numbers of
``engine.domain.codes``. NaN is stored as NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.domain.codes import EventKind, Severity
from engine.domain.instruments import ALL_SYMBOLS
from engine.store.blocks import Records

Value = int | float | str | bytes | None
Row = tuple[Value, ...]

COMMON = (
    ("wall_ns", "INTEGER"),
    ("t_ns", "INTEGER"),  # CLOCK_MONOTONIC of this boot
    ("day", "INTEGER"),  # session date YYYYMMDD
    ("ring", "TEXT"),
    ("epoch", "INTEGER"),  # incarnation of the ring
    ("sequence", "INTEGER"),
)
_EVENT = (
    ("kind", "INTEGER"),  # EventKind
    ("code", "INTEGER"),
    ("symbol", "TEXT"),  # "" for all
    ("severity", "INTEGER"),
    ("source", "INTEGER"),
    ("ref_id", "INTEGER"),
    ("ref2", "INTEGER"),
    ("value", "REAL"),
    ("limit_value", "REAL"),
    ("qty", "REAL"),
    ("price", "REAL"),
    ("text", "TEXT"),
)
TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "orders": (
        *COMMON,
        ("row", "TEXT"),  # INTENT, STATE, REFUSED or SEEN (by the gate)
        ("intent_id", "INTEGER"),
        ("order_id", "INTEGER"),
        ("symbol", "TEXT"),
        ("source", "INTEGER"),
        ("intent_kind", "INTEGER"),  # IntentKind
        ("side", "INTEGER"),
        ("order_type", "INTEGER"),
        ("tif", "INTEGER"),
        ("flags", "INTEGER"),
        ("qty", "REAL"),  # unsigned in an intent, signed (+buy) in a state
        ("limit_price", "REAL"),
        ("target_id", "INTEGER"),
        ("key", "TEXT"),
        ("state", "INTEGER"),  # OrderState
        ("refusal", "INTEGER"),  # Refusal
        ("filled_qty", "REAL"),
        ("avg_price", "REAL"),
        ("text", "TEXT"),
        ("raw", "BLOB"),  # the record itself
    ),
    "executions": (
        *COMMON,
        ("exec_id", "TEXT"),
        ("exec_base", "TEXT"),  # without the revision: a correction has the same base
        ("revision", "INTEGER"),
        ("kind", "INTEGER"),  # ExecKind
        ("symbol", "TEXT"),
        ("side", "INTEGER"),
        ("source", "INTEGER"),
        ("flags", "INTEGER"),  # ExecFlag
        ("order_id", "INTEGER"),
        ("perm_id", "INTEGER"),
        ("intent_id", "INTEGER"),
        ("qty", "REAL"),
        ("price", "REAL"),
        ("cum_qty", "REAL"),
        ("commission_usd", "REAL"),
        ("realized_pnl_usd", "REAL"),
        ("exec_wall_ns", "INTEGER"),  # the broker's time
        ("raw", "BLOB"),
    ),
    "audit": (
        *COMMON,
        ("row", "TEXT"),  # ACTION (before it is carried out), COMMAND (the record itself) or RESULT
        ("command", "INTEGER"),  # CommandKind, 0 for an order
        ("source", "INTEGER"),
        ("symbol", "TEXT"),
        ("ref_id", "INTEGER"),  # command or intent id
        ("result", "INTEGER"),  # 0 done, 1 refused; NULL but in RESULT
        ("flags", "INTEGER"),
        ("arg", "REAL"),
        ("who", "TEXT"),
        ("text", "TEXT"),
        ("raw", "BLOB"),
    ),
    "guardrails": (*COMMON, *_EVENT),
    "events": (*COMMON, *_EVENT),
}


@dataclass(frozen=True, slots=True)
class Names:
    """What the conversion needs to know of its surroundings."""

    symbols: tuple[str, ...]
    wall_offset_ns: int
    """Wall time minus monotonic time."""
    day: Callable[[int], int]
    """Session date of a wall time, ns -> YYYYMMDD."""

    def symbol(self, number: int) -> str:
        if number == ALL_SYMBOLS:
            return ""
        return self.symbols[number] if number < len(self.symbols) else f"#{number}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Records polled from one ring at once. ``lost`` were lost immediately before them; ``next_sequence`` follows."""

    ring: str
    epoch: int
    records: Records
    lost: int
    next_sequence: int
    t_ns: int
    """When it was polled."""


def split_exec_id(exec_id: str) -> tuple[str, int]:
    """Base and revision of the broker's execution id: "0000e0d5.61.01.02" -> ("0000e0d5.61.01", 2)."""
    base, dot, revision = exec_id.rpartition(".")
    return (base, int(revision)) if dot and revision.isdigit() else (exec_id, 0)


def rows_of(batch: Batch, names: Names) -> Iterator[tuple[str, Row]]:
    """(table, row without id and hash) for every record of a batch; a gap before it becomes a row of its own."""
    if batch.lost:
        yield "events", _gap(batch, names)
    convert = _CONVERTERS[batch.ring.partition(".")[0]]
    raw = batch.records.tobytes()
    size = batch.records.dtype.itemsize
    last_second, day = -1, 0
    for i, record in enumerate(batch.records.tolist()):
        t_ns = _time(batch, record)
        wall = t_ns + names.wall_offset_ns
        if wall // 1_000_000_000 != last_second:
            last_second, day = wall // 1_000_000_000, names.day(wall)
        common = (wall, t_ns, day, batch.ring, batch.epoch, record[0])
        yield convert(common, record, raw[i * size : (i + 1) * size], names)


def _time(batch: Batch, record: tuple[Any, ...]) -> int:
    at = 2 if batch.ring.startswith("orders.") else 1
    return int(record[at]) or batch.t_ns


def _gap(batch: Batch, names: Names) -> Row:
    wall = batch.t_ns + names.wall_offset_ns
    first = batch.next_sequence - len(batch.records) - batch.lost
    return (
        wall, batch.t_ns, names.day(wall), batch.ring, batch.epoch, first,
        int(EventKind.ALERT), GAP_CODE, "", int(Severity.P2), 0, first, batch.lost,
        float(batch.lost), None, None, None,
        f"gap: {batch.lost} records of {batch.ring} were overwritten before they could be recorded",
    )  # fmt: skip


GAP_CODE = 1001
"""``code`` of an ALERT row that stands for records lost from a ring."""


def _real(value: float) -> float | None:
    return value if value == value else None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _intent(common: Row, r: tuple[Any, ...], raw: bytes, names: Names) -> tuple[str, Row]:
    (_, _, _, intent_id, symbol, kind, source, side, order_type, tif, flags, qty, limit, target, _, key, *_) = r
    return "orders", (
        *common, "INTENT", intent_id, 0, names.symbol(symbol), source, kind, side, order_type, tif, flags,
        _real(qty), _real(limit), target, _text(key), None, None, None, None, "", raw,
    )  # fmt: skip


def _command(common: Row, r: tuple[Any, ...], raw: bytes, names: Names) -> tuple[str, Row]:
    _, _, command_id, symbol, kind, source, flags, arg, who, reason, _ = r
    return "audit", (
        *common, "COMMAND", kind, source, names.symbol(symbol), command_id, None, flags, _real(arg), _text(who),
        _text(reason), raw,
    )  # fmt: skip


def _execution(common: Row, r: tuple[Any, ...], raw: bytes, names: Names) -> tuple[str, Row]:
    (_, _, wall, symbol, side, kind, source, flags, _, exec_id, order, perm, intent, qty, price, cum, fee, pnl) = r
    text = _text(exec_id)
    return "executions", (
        *common, text, *split_exec_id(text), kind, names.symbol(symbol), side, source, flags, order, perm, intent,
        _real(qty), _real(price), _real(cum), _real(fee), _real(pnl), wall, raw,
    )  # fmt: skip


_ORDER_ROWS = {EventKind.ORDER_STATE: "STATE", EventKind.REFUSED: "REFUSED", EventKind.INTENT: "SEEN"}
_GUARDRAIL_KINDS = (EventKind.GUARDRAIL, EventKind.STOP)


def _event(common: Row, r: tuple[Any, ...], raw: bytes, names: Names) -> tuple[str, Row]:
    _, _, _, kind, code, number, severity, source, ref_id, ref2, value, limit, qty, price, words = r
    symbol, text = names.symbol(number), _text(words)
    if kind in _ORDER_ROWS:
        refused = kind == EventKind.REFUSED
        state = None if refused or kind == EventKind.INTENT else code
        side = (qty > 0) - (qty < 0)
        return "orders", (
            *common, _ORDER_ROWS[EventKind(kind)], ref_id, ref2, symbol, source, None, side, None, None, None,
            _real(qty), _real(limit), 0, "", state, code if refused else None, _real(value), _real(price), text, raw,
        )  # fmt: skip
    if kind in (EventKind.AUDIT, EventKind.COMMAND_RESULT):
        done = kind == EventKind.COMMAND_RESULT
        return "audit", (
            *common, "RESULT" if done else "ACTION", 0 if done else code, source, symbol, ref_id,
            code if done else None, None, _real(value), "", text, raw,
        )  # fmt: skip
    table = "guardrails" if kind in _GUARDRAIL_KINDS else "events"
    return table, (
        *common, kind, code, symbol, severity, source, ref_id, ref2,
        _real(value), _real(limit), _real(qty), _real(price), text,
    )  # fmt: skip


_Converter = Callable[[Row, tuple[Any, ...], bytes, Names], tuple[str, Row]]
_CONVERTERS: dict[str, _Converter] = {
    "orders": _intent,
    "commands": _command,
    "executions": _execution,
    "events": _event,
}


def column(table: str, row: Sequence[Value], name: str) -> Value:
    """Value of a named column of a row as ``rows_of`` gives it. Raises KeyError."""
    for i, (known, _) in enumerate(TABLES[table]):
        if known == name:
            return row[i]
    raise KeyError(f"table {table} has no column {name}")
