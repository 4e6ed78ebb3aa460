"""The report of an incident as text: the same on the command line and in the browser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from engine.store.incident import Incident

_WIDEST = 96


def as_text(found: Incident) -> str:
    """What tripped, times, course, closing orders, executions, what is left: sections of aligned columns."""
    ended = "flat" if found.by_hand else "released"
    state = f"{ended} {moment(found.ended_wall_ns)}" if found.ended_wall_ns else "OPEN"
    parts = [f"incident {found.id}: {found.title}", f"began {moment(found.began_wall_ns)}, {state}"]
    parts.append(_section("What tripped", ("time", "badge", "value", "limit", "unit", "reason"), (
        (moment(c["wall_ns"]), c["badge"], _number(c["value"]), _number(c["limit"]), c["unit"], c["reason"])
        for c in found.causes
    ), f"no badge: {found.by or 'the stop was set by hand or by a dead-man'}"))  # fmt: skip
    parts.append(_section("Times", ("from to", "took"), (
        (name.replace("_", " "), _ms(value)) for name, value in found.figures_ms.items()
    ), "none"))  # fmt: skip
    parts.append(_section("Course", ("after", "took", "what", "who", "event"), (
        (_ms(s.after_ms), _ms(s.took_ms), s.what, s.who, s.text) for s in found.steps
    ), "nothing"))  # fmt: skip
    unseen = "closed over a connection of its own" if found.executions else "nothing was held"
    parts.append(_section("Closing orders", (
        "sent", "symbol", "side", "qty", "type", "state", "filled", "price", "done", "by", "word",
    ), (
        (moment(o["sent_wall_ns"])[11:], o["symbol"], o["side"], f"{o['qty'] or 0:g}", o["order_type"], o["state"],
         f"{o['filled'] or 0:g}", _number(o["avg_price"]), moment(o["filled_wall_ns"])[11:], o["source"], o["text"])
        for o in found.orders
    ), f"none: {unseen}"))  # fmt: skip
    parts.append(_section("Executions", ("told", "broker's time", "execution", "symbol", "side", "qty", "price"), (
        (moment(e["told_wall_ns"])[11:], moment(e["wall_ns"])[11:19] + "Z", e["exec_id"], e["symbol"], e["side"],
         f"{e['qty'] or 0:g}", _number(e["price"]))
        for e in found.executions
    ), "none"))  # fmt: skip
    todo = "\n".join(f"  {n}. {line}" for n, line in enumerate(found.left, 1))
    return "\n".join([*parts, "\nLeft to do", todo]) + "\n"


def moment(wall_ns: int) -> str:
    """UTC with milliseconds, empty for none."""
    if not wall_ns:
        return ""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if abs(value) < 1_000.0 else f"{value / 1e3:.2f} s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def _section(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> str:
    table = [tuple(str(cell) for cell in row) for row in rows]
    if not table:
        return f"\n{title}\n  {empty}"
    widths = [min(_WIDEST, max(len(row[i]) for row in (tuple(heads), *table))) for i in range(len(heads))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (tuple(heads), *table)
    ]
    return "\n".join([f"\n{title}", *lines])
