"""What the store's tests share: records with known content, a recorder driven by hand."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from engine.domain.codes import EventKind, ExecKind, IntentKind, OrderType, Side, Source, TickKind
from engine.procs.recorder import Recorder, create
from engine.runtime.testing import TestInstance, instance
from engine.store.blocks import Records
from engine.store.rows import Names
from shm.layouts import EVENT, EXECUTION, INTENT, TICK

WALL_OFFSET_NS = 1_704_205_800_000_000_000
SYMBOLS = ("AAPL", "MSFT", "AMZN")


def ticks(count: int, first: int = 0, symbol: int = 0) -> Records:
    """Ticks whose every field follows from their sequence."""
    found = np.zeros(count, TICK)
    n = np.arange(first, first + count)
    found["sequence"] = n
    found["t_socket_ns"] = 1_000_000_000 + n * 1_000
    found["kind"] = TickKind.TRADE
    found["symbol"] = symbol
    found["price"] = 100.0 + n * 0.01
    found["size"] = n % 7 + 1
    return found


def events(count: int, first: int = 0, kind: int = EventKind.LIFECYCLE, **fields: object) -> Records:
    found = np.zeros(count, EVENT)
    n = np.arange(first, first + count)
    found["sequence"] = n
    found["t_ns"] = 1_000_000_000 + n
    found["kind"] = kind
    found["symbol"] = 0xFFFF
    for name in ("value", "limit", "qty", "price"):
        found[name] = np.nan
    found["ref2"] = n
    for name, value in fields.items():
        found[name] = value
    return found


def intent(intent_id: int, *, sequence: int = 0, symbol: int = 0, side: Side = Side.BUY, qty: float = 100.0) -> Records:
    found = np.zeros(1, INTENT)
    found["sequence"], found["t_intent_ns"], found["intent_id"] = sequence, 2_000_000_000, intent_id
    found["symbol"], found["kind"], found["source"] = symbol, IntentKind.NEW, Source.ALGO
    found["side"], found["order_type"], found["qty"], found["limit_price"] = side, OrderType.LMT, qty, 150.0
    return found


def execution(
    exec_id: str,
    qty: float,
    price: float,
    *,
    sequence: int = 0,
    side: Side = Side.BUY,
    kind: ExecKind = ExecKind.FILL,
    symbol: int = 0,
    commission: float = np.nan,
    at_ns: int = 0,
) -> Records:
    found = np.zeros(1, EXECUTION)
    found["sequence"], found["t_socket_ns"] = sequence, 3_000_000_000 + sequence
    found["t_exec_wall_ns"] = WALL_OFFSET_NS + (at_ns or 3_000_000_000 + sequence)
    found["exec_id"], found["kind"], found["side"], found["symbol"] = exec_id.encode(), kind, side, symbol
    found["qty"], found["price"], found["commission_usd"], found["realized_pnl_usd"] = qty, price, commission, np.nan
    return found


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for another thread or process; fails the test if it never happens."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


class Receiver(ThreadingHTTPServer):
    """A webhook that keeps what it gets; ``refuse`` answers 500."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[dict[str, str]] = []
        self.pings = 0
        self.refuse = False

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server_address[1]}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuse:
            self.send_error(500)
            return
        self.server.got.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.pings += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """The test's output stays readable."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a real file system of so many KiB."""
    places: list[Path] = []

    def make(kib: int) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
        mounted = subprocess.run(command, capture_output=True)
        if mounted.returncode:
            pytest.skip(f"a tmpfs can't be mounted here: {mounted.stderr.decode().strip()}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def names() -> Names:
    return Names(SYMBOLS, WALL_OFFSET_NS, lambda wall: 20240102)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TestInstance]:
    with instance(tmp_path / "state") as found:
        yield found


@pytest.fixture
def recorder(world: TestInstance) -> Iterator[Recorder]:
    agent = create(world.context("recorder"))
    agent.on_start(world.clock.now_ns())
    yield agent
    agent.on_close(world.clock.now_ns())
