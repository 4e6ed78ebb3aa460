"""The alert dispatcher: a thread of the recorder that turns committed journal rows into messages and delivers them.

What is due is decided by ``alert_book``; delivery is a child process that is started when a message has to go out. The
book is kept in ``state_dir/alerts.json``, and rows that were committed but not looked at are read from the journal at
the next start: an unacknowledged P1 goes on repeating over restarts.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.domain.codes import CommandKind, Severity
from engine.store.alert_book import AlertBook, Message
from engine.store.alert_child import Answer, Request
from engine.store.alert_rules import Alert, alert_of
from engine.store.files import StoreError, replace_file
from engine.store.journal import Committed, read_only
from engine.store.rows import TABLES, column

FILE = "alerts.json"
SEND_TIMEOUT_S = 20.0
DEADMAN_EVERY_NS = 60 * 1_000_000_000
CATCH_UP_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Channels:
    """Apprise URLs per severity (several separated by spaces) and the outside dead-man's URL. Empty: not configured."""

    p1: str = ""
    p2: str = ""
    routine: str = ""
    deadman: str = ""

    def urls(self, severity: Severity) -> str:
        """A page that nobody set up goes to the next best channel rather than nowhere."""
        if severity == Severity.P1:
            return self.p1 or self.p2 or self.routine
        if severity == Severity.P2:
            return self.p2 or self.routine
        return self.routine


class Courier:
    """Talks to the child process that delivers. One message at a time."""

    def __init__(self, timeout_s: float = SEND_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None

    def send(self, urls: str, message: Message) -> Answer:
        """Deliver; starts the child if there is none. Never raises, never takes longer than the timeout."""
        request = Request(urls, message.title, message.body, message.severity.name)
        for _ in range(2):  # a child that went idle and ended between two messages is replaced once
            try:
                return self._ask(msgspec.json.encode(request) + b"\n")
            except OSError:
                self.close()
        return Answer(False, "the delivery process can't be started")

    def _ask(self, line: bytes) -> Answer:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(
                [sys.executable, "-m", "engine.store.alert_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(line)
        child.stdin.flush()
        waiter = select.poll()  # select() refuses descriptors beyond 1023
        waiter.register(child.stdout, select.POLLIN)
        if not waiter.poll(self._timeout_s * 1000):
            self.close()
            return Answer(False, f"no answer from the receiver within {self._timeout_s:g} s")
        reply = child.stdout.readline()
        if not reply:
            raise BrokenPipeError
        return msgspec.json.decode(reply, type=Answer)

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def ping(url: str) -> bool:
    """One dead-man ping: an HTTP GET. False if it did not succeed."""
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=5.0) as response:
            return bool(response.status < 400)
    except (OSError, ValueError):
        return False


class Dispatcher:
    """Feed it rows and notices from any thread; ``step`` decides and delivers, ``start`` does so in a thread."""

    def __init__(
        self,
        state_dir: Path,
        journal: Path,
        channels: Channels,
        repeat_s: float,
        wall_ns: Callable[[], int],
        *,
        healthy: Callable[[], bool] = lambda: True,
    ) -> None:
        self._path = state_dir / FILE
        self._journal = journal
        self._channels = channels
        self._wall_ns = wall_ns
        self._healthy = healthy
        self._inbox: deque[Committed | Alert] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._courier = Courier()
        self._next_ping_ns = 0
        self.book = self._load(int(repeat_s * 1e9))
        self._saved_id = self.book.last_id
        self.sent = 0
        self.results: deque[str] = deque(maxlen=64)
        """What there is to tell in the log: acknowledgements, failed deliveries."""
        self.thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def _load(self, repeat_ns: int) -> AlertBook:
        book = None
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            book = msgspec.json.decode(self._path.read_bytes(), type=AlertBook)
        if book is None:
            return AlertBook(repeat_ns, last_id=self._head())
        book.repeat_ns = repeat_ns
        return book

    def _head(self) -> int:
        with contextlib.suppress(StoreError), read_only(self._journal) as db:
            return int((db.execute("SELECT value FROM meta WHERE key = 'head_id'").fetchone() or (0,))[0])
        return 0

    def rows(self, rows: list[Committed]) -> None:
        """Rows that have just been committed."""
        if rows:
            with self._wake:
                self._inbox.extend(rows)
                self._wake.notify()

    def notice(self, alert: Alert) -> None:
        """An alert that does not come from the journal, because the journal itself is what fails."""
        with self._wake:
            self._inbox.append(alert)
            self._wake.notify()

    def start(self) -> None:
        self.thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self.thread.is_alive():
            self.thread.join(timeout_s)
        self._courier.close()

    def _run(self) -> None:
        self.catch_up()
        while not self._closing:
            try:
                self.step()
            except Exception as error:  # whatever it is: pages go on, and the log says what happened
                self._courier.close()
                self.results.append(f"alerts: {type(error).__name__}: {error}")
            with self._wake:
                if not self._inbox and not self._closing:
                    self._wake.wait(0.5)
        self.step()
        self._save()

    def catch_up(self) -> None:
        """Look at rows that were committed while nobody looked."""
        self._read_between(self.book.last_id, 1 << 62)

    def _read_between(self, after: int, before: int) -> None:
        now = self._wall_ns()
        with contextlib.suppress(StoreError), read_only(self._journal) as db:
            rows: list[Committed] = []
            for name in ("audit", "guardrails", "events"):
                names = ", ".join(n for n, _ in TABLES[name])
                sql = f"SELECT id, {names} FROM {name} WHERE id > ? AND id < ? ORDER BY id DESC LIMIT ?"
                rows += [Committed(r[0], name, r[1:]) for r in db.execute(sql, (after, before, CATCH_UP_ROWS))]
            for row in sorted(rows, key=lambda r: r.id):
                self._take(row, now)

    def _take(self, item: Committed | Alert, now_ns: int) -> None:
        if isinstance(item, Alert):
            self.book.observe(item, now_ns)
            return
        if item.id <= self.book.last_id:
            return
        self.book.last_id = item.id
        if item.table == "audit" and column("audit", item.row, "row") == "COMMAND":
            if column("audit", item.row, "command") == CommandKind.ACKNOWLEDGE:
                which = int(column("audit", item.row, "arg") or 0)
                closed = self.book.acknowledge(which, now_ns)
                who = str(column("audit", item.row, "who") or "operator")
                self.results.append(f"{who} acknowledged {len(closed)} incidents {closed}")
            return
        alert = alert_of(item.id, item.table, item.row)
        if alert is not None:
            self.book.observe(alert, now_ns)

    def step(self) -> int:
        """Take in what waits, deliver what is due; returns the messages delivered."""
        now = self._wall_ns()
        before = self._durable_part()
        while True:
            with self._wake:
                if not self._inbox:
                    break
                item = self._inbox.popleft()
            if isinstance(item, Committed) and item.id > self.book.last_id + 1:
                self._read_between(self.book.last_id, item.id)
            self._take(item, now)
        count = 0
        for message in self.book.due(now):
            urls = self._channels.urls(message.severity)
            answer = self._courier.send(urls, message) if urls else Answer(True, "no channel configured")
            self.book.delivered(message, answer.ok, now)
            count += answer.ok and bool(urls)
            if answer.reason:
                self.results.append(f"{message.title}: {answer.reason}")
        self.sent += count
        # ``last_id`` alone is not worth a sync each time: rows looked at twice are only counted twice.
        if self._durable_part() != before or self.book.last_id > self._saved_id + CATCH_UP_ROWS // 10:
            self._save()
        if self._channels.deadman and now >= self._next_ping_ns and self._healthy():
            self._next_ping_ns = now + DEADMAN_EVERY_NS
            ping(self._channels.deadman)
        return count

    def _durable_part(self) -> bytes:
        return msgspec.json.encode((self.book.incidents, self.book.routine))

    def _save(self) -> None:
        self._saved_id = self.book.last_id
        with contextlib.suppress(OSError):  # a full disk must not silence the alerts
            replace_file(self._path, msgspec.json.encode(self.book))
