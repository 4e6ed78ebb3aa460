"""What a cockpit knows of the day at its start: the journal first, then the rings from their oldest record.

The rings alone would do for a restart within a quiet day; after a busy one, or after a reboot, only the journal knows.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

from engine.cockpit.blotter import Blotter, Fill, Order, fill_key, reason_of
from engine.cockpit.ticket import order_words
from engine.domain.codes import ExecFlag, OrderState, Refusal, Source
from engine.domain.instruments import Instrument
from engine.store.files import StoreError
from engine.store.journal_read import JournalReader

MOST_ORDERS, MOST_FILLS = 1_000, 2_000
SIDES = {"BUY": 1, "SELL": -1}
Keys = OrderedDict[bytes, tuple[bytes, int]]


def from_journal(
    path: Path, day: int, blotter: Blotter, keys: Keys, instruments: tuple[Instrument, ...], log: logging.Logger
) -> int:
    """Fill the blotter and the idempotency keys from one day's rows; returns how many. An unreadable journal is said
    and skipped: a cockpit must come up all the same."""
    if not path.is_file():
        return 0
    numbers = {i.symbol: i.index for i in instruments}
    try:
        with JournalReader(path) as journal:
            orders = journal.orders(limit=MOST_ORDERS, day=day)
            fills = journal.fills(limit=MOST_FILLS, day=day)
    except (StoreError, OSError) as error:
        log.warning("the journal can't be read, the blotter starts from the rings: %s", error)
        return 0
    for row in orders:
        _order(row, blotter, numbers)
        if row.get("key") and row["source"] == Source.OPERATOR.name:
            words = order_words(
                row["side"], int(row["qty"] or 0), row["symbol"], _number(row["limit_price"]), row["tif"] or "DAY"
            )
            keys[str(row["key"]).encode()] = (words.encode(), int(row["intent_id"]))
    for row in fills:
        _fill(row, blotter, numbers)
    return len(orders) + len(fills)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _code(kind: Any, name: Any) -> int:
    return int(kind[name]) if name in kind.__members__ else 0


def _order(row: dict[str, Any], blotter: Blotter, numbers: dict[str, int]) -> None:
    blotter.changes += 1
    blotter.orders[int(row["intent_id"])] = Order(
        int(row["intent_id"]),
        symbol=numbers.get(row["symbol"], -1),
        source=_code(Source, row["source"]),
        side=SIDES.get(row["side"], 0),
        qty=_number(row["qty"]),
        limit=_number(row["limit_price"]),
        state=_code(OrderState, row["state"]) or int(OrderState.PENDING),
        filled=float(row["filled"] or 0.0),
        avg_price=_number(row["avg_price"]),
        broker_id=int(row["order_id"] or 0),
        reason=reason_of(row["text"] or ""),
        refusal=_code(Refusal, row["refusal"]),
        created_wall_ns=int(row["wall_ns"]),
        updated_wall_ns=int(row["updated_wall_ns"]),
        change=blotter.changes,
    )


def _fill(row: dict[str, Any], blotter: Blotter, numbers: dict[str, int]) -> None:
    blotter.changes += 1
    blotter.fills[fill_key(row["exec_id"])] = Fill(
        row["exec_id"],
        numbers.get(row["symbol"], -1),
        SIDES.get(row["side"], 0),
        abs(float(row["qty"])),
        float(row["price"]),
        _code(Source, row["source"]),
        int(row["flags"] or 0) | (ExecFlag.FLATTEN if row["flatten"] else 0),
        int(row["order_id"] or 0),
        int(row["perm_id"] or 0),
        int(row["intent_id"] or 0),
        int(row["exec_wall_ns"] or row["wall_ns"]),
        _number(row["commission_usd"]),
        _number(row["realized_pnl_usd"]),
        change=blotter.changes,
    )
