"""What survives a restart or kill -9 of the gateway: account, positions, orders, executions of the day, counters.

Two kinds of files. A snapshot (JSON, written to a temporary file, fsynced and renamed by a helper thread) and a log
of changes since, appended with one ``write`` per change before any client is told of it. What was written survives
the death of the process, because the kernel has it; only the snapshot is forced to disk, so a power cut may cost the
changes since the last one. A log whose last line is torn is read up to that line. Loading applies the log's
executions to the account with the same functions as live ones.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from engine.paper.account import Account, Position
from engine.paper.catalog import Catalog
from engine.paper.orders import Execution, Ledger, PaperOrder

log = logging.getLogger(__name__)

LAYOUT = 1
_DIFFERS = (
    (b"perm_id", b"%d"),
    (b"order_id", b"%d"),
    (b"action", b'"%b"'),
    (b"quantity", b"%d.0"),
    (b"limit", b"%b"),
    (b"order_ref", b"%b"),
    (b"day", b'"%b"'),
)
"""What differs between the orders of a kind, in the order of the fields."""

COMPACT_AFTER = 2_000
"""Log lines after which a new snapshot is written."""


class StateError(RuntimeError):
    """The state file can't be used; the message says what to do."""


def _order_fields(order: PaperOrder, catalog: Catalog) -> dict[str, Any]:
    return asdict(order) | {"symbol": catalog[order.symbol].symbol}


def _execution_fields(execution: Execution, catalog: Catalog) -> dict[str, Any]:
    return asdict(execution) | {"symbol": catalog[execution.symbol].symbol}


class Journal:
    """Writer of the log and the snapshots. With ``path`` None nothing is kept."""

    def __init__(
        self,
        path: Path | None,
        catalog: Catalog,
        account: Account,
        ledger: Ledger,
        sequence: int = 0,
        lock: int = -1,
    ) -> None:
        self._path = path
        self._catalog = catalog
        self._account = account
        self._ledger = ledger
        self._sequence = sequence
        self._lines = 0
        self._generation = 0
        self._log = -1
        self._writer: threading.Thread | None = None
        self._lock = lock
        self._names = {symbol: orjson.dumps(i.symbol) for symbol, i in catalog.instruments.items()}
        if path is not None:
            self._generation = max((g for g, _ in _logs(path)), default=0)
            self._compact()
            # A log without the snapshot that it continues would be worthless after a kill.
            self._join()

    @property
    def keeps(self) -> bool:
        return self._path is not None

    def order(self, order: PaperOrder) -> None:
        """An order is new or has changed."""
        if self._path is not None:
            self._append(b"order", order.symbol, order)

    def line_of(self, order: PaperOrder) -> bytes:
        """The line of orders like this new one, to be filled in by ``placed``."""
        text = orjson.dumps(replace(order, order_ref="", day="")).replace(b"%", b"%%")
        for name, value in _DIFFERS:
            text, found = re.subn(rb'"%b":[^,}]*' % name, b'"%b":%b' % (name, value), text, count=1)
            assert found, name
        return b'"kind":"order","symbol":%b,"subject":%b}\n' % (self._names[order.symbol].replace(b"%", b"%%"), text)

    def placed(
        self,
        line: bytes,
        perm_id: int,
        order_id: int,
        action: bytes,
        quantity: int,
        limit: float,
        reference: str,
        day: str,
    ) -> None:
        """``order`` of a new order that isn't in the ledger yet, in a fraction of the time."""
        self._sequence += 1
        values = (perm_id, order_id, action, quantity, repr(limit).encode(), orjson.dumps(reference), day.encode())
        os.write(self._log, b'{"seq":%d,' % self._sequence + line % values)
        self._lines += 1  # a snapshot has to wait until the ledger knows of it

    def execution(self, execution: Execution) -> None:
        """An execution was applied to the account."""
        if self._path is not None:
            self._append(b"execution", execution.symbol, execution)

    def correction(self, execution: Execution, old_price: float) -> None:
        """The price of an execution was corrected."""
        if self._path is not None:
            self._append(b"correction", execution.symbol, execution, b',"old_price":%b' % orjson.dumps(old_price))

    def rolled(self) -> None:
        """The day has changed: everything is different, so a snapshot is due."""
        if self._path is not None:
            self._join()
            self._compact()

    def close(self) -> None:
        """Write a last snapshot and wait until it is on disk."""
        if self._path is not None and self._log >= 0:
            self._join()
            self._compact()
            self._join()
            self.abandon()

    def abandon(self) -> None:
        """Let go of the files without writing, as the death of the process would."""
        self._join()
        if self._log >= 0:
            os.close(self._log)
            os.close(self._lock)
            self._log = self._lock = -1

    def _append(self, kind: bytes, symbol: int, subject: PaperOrder | Execution, more: bytes = b"") -> None:
        # Written straight from the object, NaN as null: an acknowledgement waits for this.
        self._sequence += 1
        head = b'{"seq":%d,"kind":"%b","symbol":%b,"subject":' % (self._sequence, kind, self._names[symbol])
        os.write(self._log, b"%b%b%b}\n" % (head, orjson.dumps(subject), more))
        self._lines += 1
        if self._lines >= COMPACT_AFTER and (self._writer is None or not self._writer.is_alive()):
            self._compact()

    def _compact(self) -> None:
        """Later changes go to a new log; the old ones are deleted once the snapshot that contains them is in place."""
        assert self._path is not None
        self._generation += 1
        descriptor = os.open(f"{self._path}.log.{self._generation}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._log >= 0:
            os.close(self._log)
        self._log = descriptor
        self._lines = 0
        body = json.dumps(self._snapshot(), indent=1).encode()
        self._writer = threading.Thread(
            target=_write_snapshot, args=(self._path, body, self._generation), name="paper-state", daemon=True
        )
        self._writer.start()

    def _join(self) -> None:
        if self._writer is not None:
            self._writer.join()

    def _snapshot(self) -> dict[str, Any]:
        account, ledger, catalog = self._account, self._ledger, self._catalog
        return {
            "layout": LAYOUT,
            "seq": self._sequence,
            "account": {
                "start_equity": account.start_equity,
                "cash": account.cash,
                "realized_total": account.realized_total,
                "day": account.day,
                "day_start_equity": account.day_start_equity,
                "month_shares": account.month_shares,
                "month_pair_usd": account.month_pair_usd,
                "positions": {catalog[s].symbol: asdict(p) for s, p in account.positions.items()},
            },
            "ledger": {
                "origin": ledger.origin,
                "next_perm_id": ledger.next_perm_id,
                "exec_count": ledger.exec_count,
                "high_order_id": {str(client): high for client, high in ledger.high_order_id.items()},
                "orders": [_order_fields(order, catalog) for order in ledger.orders.values()],
                "executions": [_execution_fields(e, catalog) for e in ledger.executions],
            },
        }


def _logs(path: Path) -> list[tuple[int, Path]]:
    """Log files of a state file with their generation, oldest first."""
    found = []
    for candidate in path.parent.glob(f"{path.name}.log.*"):
        suffix = candidate.name.rpartition(".")[2]
        if suffix.isdigit():
            found.append((int(suffix), candidate))
    return sorted(found)


def _write_snapshot(path: Path, body: bytes, generation: int) -> None:
    try:
        _replace_snapshot(path, body, generation)
    except OSError as error:
        # Nothing is lost: the old snapshot and all logs since are still there, they only grow.
        log.error("%s can't be written: %s; free disk space or make the directory writable", path, error)


def _replace_snapshot(path: Path, body: bytes, generation: int) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    for older, log_file in _logs(path):
        if older < generation:
            log_file.unlink(missing_ok=True)


def lock_state(path: Path) -> int:
    """A descriptor that holds the right to use a state file until it is closed. Raises StateError.

    Two gateways on one state file would delete each other's logs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StateError(f"{path} is in use by another gateway; stop that one or set another state_file") from None
    return descriptor


def load(path: Path, catalog: Catalog) -> tuple[Account, Ledger, int] | None:
    """Account, ledger and sequence as they were; None if there is no state yet. Raises StateError."""
    logs = _logs(path)
    if not path.exists():
        if logs:
            raise StateError(f"{path} is missing but its logs exist; restore it or remove {path}.log.* to start afresh")
        return None
    names = {i.symbol: i.index for i in catalog.instruments.values()}
    try:
        saved = json.loads(path.read_bytes())
        if saved["layout"] != LAYOUT:
            raise StateError(f"{path} has layout {saved['layout']}, expected {LAYOUT}; remove it to start afresh")
        account, ledger = _restore(saved, names, catalog.pairs)
        sequence = int(saved["seq"])
        for _, log_file in logs:
            sequence = _replay(log_file, sequence, account, ledger, names)
        account.check(dict.fromkeys(catalog.instruments, 1.0))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} can't be read ({error!r}); restore a copy or remove it to start afresh") from error
    return account, ledger, sequence


def _index(fields: Mapping[str, Any], names: Mapping[str, int]) -> dict[str, Any]:
    symbol = fields["symbol"]
    if symbol not in names:
        raise StateError(f"the state speaks of {symbol}, which this market doesn't trade; use the market it came from")
    return dict(fields) | {"symbol": names[symbol]}


def _restore(saved: Mapping[str, Any], names: Mapping[str, int], pairs: frozenset[int]) -> tuple[Account, Ledger]:
    a, b = saved["account"], saved["ledger"]
    positions = {_index({"symbol": s}, names)["symbol"]: Position(**p) for s, p in a["positions"].items()}
    account = Account(a["start_equity"], a["cash"], positions, a["realized_total"], a["day"], a["day_start_equity"])
    account.month_shares = a.get("month_shares", 0.0)
    account.month_pair_usd = a.get("month_pair_usd", 0.0)
    account.pairs = pairs
    ledger = Ledger(b["origin"], next_perm_id=b["next_perm_id"])
    for fields in b["orders"]:
        ledger.put(PaperOrder(**_index(fields, names)))
    ledger.executions = [Execution(**_index(fields, names)) for fields in b["executions"]]
    ledger.exec_count = b["exec_count"]
    ledger.high_order_id = {int(client): int(high) for client, high in b["high_order_id"].items()}
    return account, ledger


def _replay(log_file: Path, sequence: int, account: Account, ledger: Ledger, names: Mapping[str, int]) -> int:
    """Apply one log's changes after ``sequence``; returns the last one applied."""
    for line in log_file.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break  # torn by the end of the process; nothing after it was ever told to a client
        if record["seq"] <= sequence:
            continue
        sequence, kind = record["seq"], record["kind"]
        # Lines of before the symbol stood beside its subject are read as well.
        told = record["subject"] if "subject" in record else record["order" if kind == "order" else "execution"]
        subject = {name: math.nan if value is None else value for name, value in told.items()}
        fields = _index(subject | {"symbol": record.get("symbol", told["symbol"])}, names)
        if kind == "order":
            ledger.put(PaperOrder(**fields))
            continue
        execution = Execution(**fields)
        if kind == "correction":
            account.correct(execution.symbol, execution.signed_quantity, record["old_price"], execution.price)
        else:
            account.fill(execution.symbol, execution.signed_quantity, execution.price, execution.commission)
        ledger.put_execution(execution)
    return sequence
