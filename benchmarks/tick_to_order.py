"""Tick to order: from a depth message at the socket to the order on the same socket, beside the limit and the usual.

usage: python benchmarks/tick_to_order.py [--smoke] [--rounds N] [--repeats N] [--load] [--json FILE]

A driver in a process (and on a core) of its own plays the gateway. In each round it sends one depth message that makes
the best bid heavy, and polls its socket until the first byte of the order is there; that time is the figure. Then it
lets the order end, makes the book neutral again, and begins anew. Contenders answer one at a time, on the other core,
in turns that are repeated; the others are stopped meanwhile.

    ours           the shared host with a polled socket: the same process that `l2dash up` runs
    echo           a bare polled TCP echo of the same message sizes: what this machine's loopback allows
    plain          a single-process ib_insync program: ticker event, numpy features, hmmlearn, placeOrder
    plain+filter   the same with our compiled forward filter instead of hmmlearn

``--load`` compares ours alone with ours beside a recorder, a cockpit and 100 streams, which run on the driver's core,
while a burst of depth follows every round so that there is something to record.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks import contenders  # noqa: E402
from benchmarks.machine import as_before, describe, first  # noqa: E402
from benchmarks.scripted_gateway import BID, ScriptedGateway  # noqa: E402
from benchmarks.tick_legs import tell_gaps, tell_legs  # noqa: E402
from shm import scratch  # noqa: E402
from shm.jit import kernel  # noqa: E402

from numba import types  # noqa: E402  isort: skip

AAPL = 0
NEUTRAL, HEAVY = 500, 5_000
WAIT_NS = 2_000_000_000
BURST = 20
POINTS = (50.0, 90.0, 99.0, 99.9)
ASKED = (
    ("ours / echo at p50", "ours", "echo", 50.0, 1.5, "at most"),
    ("ours / echo at p99", "ours", "echo", 99.0, 2.5, "at most"),
    ("plain / ours at p50", "plain", "ours", 50.0, 5.0, "at least"),
    ("plain / ours at p99", "plain", "ours", 99.0, 10.0, "at least"),
    ("plain+filter / ours at p50", "plain+filter", "ours", 50.0, 1.0, "at least"),
    ("plain+filter / ours at p99", "plain+filter", "ours", 99.0, 1.0, "at least"),
)

_recv = types.ExternalFunction("recv", types.int64(types.int32, types.int64, types.int64, types.int32))
_send = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))


@kernel("int64(int64, int64, int64, int64, int64, int64[::1], int64)")
def ask(fd, message, length, reply, room, time, wait_ns):  # type: ignore[no-untyped-def]
    """Send and poll for the first bytes of an answer. Returns the bytes, 0: none.

    ``time`` gets the ns when the write began, when it was over and when the answer was there.
    """
    at = time.ctypes.data
    _clock_gettime(1, at)
    begun = time[0] * 1_000_000_000 + time[1]
    time[2] = begun
    _send(np.int32(fd), message, length, np.int32(0))
    _clock_gettime(1, at)
    time[3] = time[0] * 1_000_000_000 + time[1]
    while True:
        got = _recv(np.int32(fd), reply, room, np.int32(0x40))
        _clock_gettime(1, at)
        now = time[0] * 1_000_000_000 + time[1]
        if got > 0:
            time[4] = now
            return got
        if got == 0 or now - begun > wait_ns:
            return 0


@dataclass
class Contender:
    """A process that answers, and what was measured of it."""

    name: str
    pid: int
    sock: socket.socket
    begin: Callable[[], None] = lambda: None
    """Before each round."""
    after: Callable[[bytes], None] = lambda reply: None
    """With what was answered; leaves everything as it was before the round."""
    message: Callable[[], bytes] = lambda: b""
    blocks: list[list[int]] = field(default_factory=list)
    stamps: Any = None
    """Its own times of its last answer (``contenders.STAMPS``), if it tells them."""
    legs: list[Any] = field(default_factory=list)
    """Of each round: the driver's three times, then ``stamps``."""

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Driver:
    def __init__(self) -> None:
        self._reply = np.zeros(1 << 16, np.uint8)
        self._time = np.zeros(5, np.int64)
        self.answer_bytes = 0
        """Of the last answer."""

    def ask(self, contender: Contender, wait_ns: int = WAIT_NS) -> tuple[int, bytes]:
        """One round trip: (ns, answer); (0, b"") without an answer."""
        contender.begin()
        message = np.frombuffer(contender.message(), np.uint8)
        got = ask(
            contender.sock.fileno(), message.ctypes.data, len(message), self._reply.ctypes.data, len(self._reply),
            self._time, wait_ns,
        )  # fmt: skip
        if not got:
            return 0, b""
        self.answer_bytes = got
        return int(self._time[4] - self._time[2]), self._reply[:got].tobytes()

    def rounds(self, contender: Contender, count: int, pause_s: float) -> list[int]:
        taken = []
        while len(taken) < count:
            ns, reply = self.ask(contender)
            mine = self._time[2:].copy()
            contender.after(reply)
            time.sleep(pause_s)
            if ns:
                taken.append(ns)
                if contender.stamps is not None:
                    contender.legs.append(np.concatenate([mine, contender.stamps]))
        return taken

    def warm(self, contender: Contender, count: int, pause_s: float, timeout_s: float = 60.0) -> None:
        """Until ``count`` rounds in a row were answered. Raises TimeoutError naming the contender."""
        deadline, row = time.monotonic() + timeout_s, 0
        while row < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{contender.name} does not answer")
            ns, reply = self.ask(contender, 300_000_000)
            row = row + 1 if ns else 0
            contender.after(reply)
            time.sleep(pause_s)


def settings(directory: Path, port: int) -> Any:
    """Configuration of our side. Message and order budgets are opened, since they pace and do nothing else."""
    from msgspec import structs

    from benchmarks.tick_load import free_ports
    from engine.config import from_mapping

    web, health = free_ports(2)

    config = from_mapping(
        {
            "instance": {"name": f"bench-{os.getpid()}", "state_dir": str(directory / "state")},
            "universe": {"stocks": [{"symbol": "AAPL"}], "index": "none"},
            "gateway": {"port": port},
            "runtime": {"placement": "shared", "poll_socket": "always", "hot_nice": -20},
            "model": {"bar_s": 1.0, "warmup_min_s": 1.0},
            "limits": {"duplicate_window_s": 0.000001},
            "cockpit": {"port": web, "health_port": health},
        },
        "tick_to_order",
    )
    gateway = structs.replace(config.gateway, messages_per_s=1_000_000, reserved_per_s=1000)
    return structs.replace(
        config, gateway=gateway, limits=structs.replace(config.limits, orders_per_s=1_000_000, order_efficiency=1e9)
    )


class Ours:
    """Our shared host in a child, with a lease from here; regions of its own."""

    def __init__(self, directory: Path, core: int, profile: str = "") -> None:
        from engine.domain.codes import Owner
        from engine.model.bundle import Registry
        from engine.runtime import instance, universe
        from engine.runtime.context import Context

        self.gateway = ScriptedGateway([])
        self.config = settings(directory, self.gateway.port)
        self.gateway.instruments = list(universe.instruments(self.config))
        (directory / "state").mkdir(parents=True)
        Registry(directory / "state" / "models").promote(
            Registry(directory / "state" / "models").add(contenders.flat_model(self.config.model.bar_s)).version
        )
        instance.create(self.config)
        self.context = Context(self.config, "watchdog")
        self._lease, self._owner = self.context.cell_writer("lease"), int(Owner.BRIDGE)
        self.context.cell_writer("stop.watchdog").publish()
        self.renew()
        self._algo = self.context.counters_of("algo")
        self._booked = 0
        self.burst = 0
        """Depth messages after each round that move no price."""
        self.stamps = contenders.shared_stamps()[: len(contenders.STAMPS)]
        self.pid = contenders.on_core(core, lambda: contenders.ours(self.config, self.stamps, profile))

    def renew(self) -> None:
        lease, now_ns = self._lease.value[0], time.monotonic_ns()
        lease["epoch"], lease["owner"], lease["granted_ns"] = 1, self._owner, now_ns
        lease["expires_ns"] = now_ns + 300_000_000_000
        self._lease.publish()

    def contender(self) -> Contender:
        """After the session is open and the book is there."""
        g = self.gateway
        wait_for("our session", lambda: (self.renew(), g.pump(), g.depth)[2])
        assert g.client is not None
        return Contender(
            "ours",
            self.pid,
            g.client,
            self._begin,
            self._after,
            lambda: g.row(AAPL, BID, 0, 100.0, HEAVY),
            stamps=self.stamps,
        )

    def _begin(self) -> None:
        self.renew()
        self._rebook()

    def _rebook(self) -> None:
        """A book for a new subscription: after a long pause our side asks again."""
        g = self.gateway
        while g.pump():
            pass
        if g.depth[AAPL] != self._booked:
            self._booked = g.depth[AAPL]
            g.write(g.book(AAPL, 100.00, 100.01, NEUTRAL))

    def _after(self, reply: bytes) -> None:
        g = self.gateway
        if reply:
            g.take(reply)
        while g.pump():
            pass
        ends = [g.done(order) for order in g.orders if order[0] == b"3"]
        g.orders.clear()
        g.raw.clear()
        seen, until = self._algo.get("signals"), time.monotonic() + 0.05
        more = []
        for k in range(self.burst):
            side, level = k % 2, 3 + k % 7
            price = 100.0 - 0.01 * level if side == BID else 100.01 + 0.01 * level
            more.append(g.row(AAPL, side, level, price, NEUTRAL + k))
        g.write(b"".join([*ends, g.row(AAPL, BID, 0, 100.0, NEUTRAL), *more]))
        # A round begins when the last one is over on both sides: a strategy whose order still works does nothing.
        while self._algo.get("signals") == seen and time.monotonic() < until:
            pass

    def latency(self) -> list[dict[str, Any]]:
        from engine.cockpit.services import Services

        return Services(self.context).latency()

    def said(self) -> str:
        """The last events of our services, for whoever wonders why nothing comes."""
        events = []
        for name in ("broker-bridge", "ml-service", "algo"):
            for e in self.context.ring_reader(f"events.{name}", 4096).poll() if name == "broker-bridge" else ():
                events.append(f"{name} {int(e['kind'])} {int(e['code'])} {e['text'].decode(errors='replace')}")
        model = self.context.cell_reader("model").read(AAPL)
        return "\n".join([*events[-12:], f"model valid {model['valid']} warming {model['warming']}"])

    def close(self) -> None:
        self.context.close()
        shutil.rmtree(self.config.shm_dir, ignore_errors=True)
        self.gateway.close()


def wait_for(what: str, holds: Callable[[], Any], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sign of {what} within {timeout_s:g} s")
        time.sleep(0.002)


def echo_contender(core: int, answer_bytes: int) -> Contender:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        stamps = contenders.shared_stamps()[: len(contenders.STAMPS)]
        pid = contenders.on_core(core, lambda: contenders.echo(port, answer_bytes, stamps))
        sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    message = ScriptedGateway([])
    message.depth[AAPL] = 2_000_000_000
    frame = message.row(AAPL, BID, 0, 100.0, HEAVY)
    message.close()
    return Contender("echo", pid, sock, message=lambda: frame, stamps=stamps)


def plain_contender(
    name: str, core: int, instruments: list[Any], *, filtered: bool
) -> tuple[Contender, ScriptedGateway]:
    g = ScriptedGateway(instruments)
    first = instruments[AAPL]
    pid = contenders.on_core(core, lambda: contenders.plain(g.port, first.con_id, first.symbol, filtered))
    wait_for(f"{name}'s session", lambda: (g.pump(), g.depth)[1])
    assert g.client is not None
    g.write(g.book(AAPL, 100.00, 100.01, NEUTRAL))

    def after(reply: bytes) -> None:
        if reply:
            g.take(reply)
        while g.pump():
            pass
        ends = [g.done(order) for order in g.orders if order[0] == b"3"]
        g.orders.clear()
        g.raw.clear()
        g.write(b"".join(ends) + g.row(AAPL, BID, 0, 100.0, NEUTRAL))

    heavy = lambda: g.row(AAPL, BID, 0, 100.0, HEAVY)  # noqa: E731
    return Contender(name, pid, g.client, after=after, message=heavy), g


def percentiles(blocks: list[list[int]]) -> dict[float, float]:
    """Median over the repetitions of each percentile, µs."""
    return {p: float(np.median([np.percentile(b, p) for b in blocks])) / 1e3 for p in POINTS}


def report(results: dict[str, dict[float, float]], count: int, repeats: int) -> list[dict[str, Any]]:
    print(f"{'':14s}" + "".join(f"{f'p{p:g}':>10s}" for p in POINTS) + "   µs, medians of "
          f"{repeats} interleaved repetitions of {count}")  # fmt: skip
    for name, row in results.items():
        print(f"{name:14s}" + "".join(f"{row[p]:10.1f}" for p in POINTS))
    print()
    rows = []
    for words, a, b, point, limit, kind in ASKED:
        if a not in results or b not in results:
            continue
        ratio = results[a][point] / results[b][point]
        reached = ratio <= limit if kind == "at most" else ratio >= limit
        rows.append({"what": words, "ratio": ratio, "asked": f"{kind} {limit:g}", "reached": reached})
        print(f"{words:28s} {ratio:8.2f}   asked: {kind} {limit:g}   {'reached' if reached else 'MISSED'}")
    return rows


def run(rounds: int, repeats: int, pause_s: float, names: list[str], profile: str = "") -> dict[str, Any]:
    """Measure and print; returns what was printed."""
    from engine.procs import hot_path  # noqa: F401  (its kernels are compiled or loaded once, before the forks)
    from engine.runtime import kernels

    kernels.compile_all(print)
    cores = sorted(os.sched_getaffinity(0))
    mine, theirs = cores[0], cores[-1]
    print(f"machine   {describe()}")
    print(f"topology  driver on core {mine}; contenders in turn on core {theirs}; loopback TCP; both sides poll")
    gaps = tell_gaps(theirs)
    directory = scratch.make("l2dash-bench-")
    made: list[Contender] = []
    gateways: list[ScriptedGateway] = []
    our = None
    try:
        our = Ours(directory, theirs, profile)
        os.sched_setaffinity(0, {mine})
        first()
        driver = Driver()
        made.append(our.contender())
        driver.warm(made[0], 10, pause_s)
        made[0].stop()
        if "echo" in names:
            made.append(echo_contender(theirs, driver.answer_bytes))
            made[-1].stop()
        for name in ("plain", "plain+filter"):
            if name in names:
                contender, gateway = plain_contender(
                    name, theirs, list(our.gateway.instruments), filtered=name.endswith("filter")
                )
                gateways.append(gateway)
                made.append(contender)
                driver.warm(contender, 5, pause_s)
                contender.stop()
        for _ in range(repeats):
            for contender in made:
                our.renew()
                contender.go()
                driver.warm(contender, 10, pause_s)
                contender.blocks.append(driver.rounds(contender, rounds, pause_s))
                contender.stop()
        results = {c.name: percentiles(c.blocks) for c in made}
        rows = report(results, rounds, repeats)
        legs = tell_legs({c.name: np.array(c.legs) for c in made if c.legs})
        hops = [h for h in our.latency() if h["count"]]
        print("\nwhere the time goes in ours, µs (its own stamps):")
        for h in hops:
            print(f"  {h['words']:26s} {h['p50_us']:9.2f} p50 {h['p99_us']:9.2f} p99   {h['count']} samples")
        refused = our.context.counters_of("broker-bridge").get("orders_refused")
        if refused:
            print(f"  the gate refused {refused} intents")
        return {"machine": describe(), "us": results, "ratios": rows, "legs": legs, "gaps": gaps, "hops": hops}
    except TimeoutError as error:
        said = our.said() if our is not None else ""
        raise SystemExit(f"{error}\n{said}") from error
    finally:
        for contender in made:
            with contextlib.suppress(ProcessLookupError):
                contender.go()
                os.kill(contender.pid, signal.SIGTERM if profile and contender.name == "ours" else signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(contender.pid, 0)
        for gateway in gateways:
            gateway.close()
        if our is not None:
            our.close()
        shutil.rmtree(directory, ignore_errors=True)


def loaded(rounds: int, repeats: int, pause_s: float) -> dict[str, Any]:
    """Ours alone and beside 100 streams and a busy recorder, in turns; prints and returns what was found."""
    from benchmarks.tick_load import STREAMS, Load
    from engine.procs import hot_path  # noqa: F401
    from engine.runtime import kernels
    from shm.counters import BUCKETS
    from shm.counters import percentiles as of_counts

    kernels.compile_all(print)
    cores = sorted(os.sched_getaffinity(0))
    mine, theirs = cores[0], cores[-1]
    print(f"machine   {describe()}")
    print(f"topology  ours on core {theirs}, which is its own; driver, recorder, cockpit and {STREAMS} streams "
          f"on core {mine}, the driver first")  # fmt: skip
    directory = scratch.make("l2dash-bench-")
    our, load = Ours(directory, theirs), None
    stamps = {side: np.zeros(BUCKETS, np.int64) for side in ("alone", "loaded")}
    blocks: dict[str, list[list[int]]] = {side: [] for side in stamps}
    try:
        os.sched_setaffinity(0, {mine})
        first()
        driver, contender = Driver(), our.contender()
        driver.warm(contender, 10, pause_s)
        contender.stop()  # it would miss its broker meanwhile
        load = Load(our.context, directory / "state", mine)
        contender.go()
        counters, our.burst = our.context.counters_of("broker-bridge"), BURST
        recorder, fresh = our.context.counters_of("recorder"), our.context.counters_of("broker-bridge").get("ticks")
        for repeat in range(repeats):
            for side in ("alone", "loaded") if repeat % 2 else ("loaded", "alone"):
                if side == "loaded":
                    load.go()
                our.renew()
                driver.warm(contender, 10, pause_s)
                before = counters.histogram("tick_to_order_ns").copy()
                blocks[side].append(driver.rounds(contender, rounds, pause_s))
                stamps[side] += counters.histogram("tick_to_order_ns") - before
                if side == "loaded":
                    load.stop()
        load.go()  # what was left over while it stood still is recorded too
        wait_for("the recorder at the end of its ring", lambda: recorder.get("ticks_written") >= counters.get("ticks"))
        load.stop()
        ticks = counters.get("ticks") - fresh
        found = {side: percentiles(b) for side, b in blocks.items()}
        own = {side: of_counts(counts, POINTS) for side, counts in stamps.items()}
        print(f"{'':24s}" + "".join(f"{f'p{p:g}':>10s}" for p in POINTS) + f"   µs, {repeats} turns of {rounds}")
        for side in stamps:
            print(f"{f'{side}, at the driver':24s}" + "".join(f"{found[side][p]:10.1f}" for p in POINTS))
        for side in stamps:
            print(f"{f'{side}, its own stamps':24s}" + "".join(f"{ns / 1e3:10.2f}" for ns in own[side]))
        changes = [(float(np.median(b)) / float(np.median(a)) - 1) * 100 for a, b in zip(*blocks.values(), strict=True)]
        change = float(np.median(changes))
        print(f"p50 with load   {change:+.1f} %   asked: under 10 %   {'reached' if change < 10 else 'MISSED'}")
        shares = {name: spent / load.elapsed * 100 for name, spent in load.spent.items()}
        busy = ", ".join(f"{name} {share:.0f} %" for name, share in shares.items())
        print(f"meanwhile       {busy} of a core; {ticks} ticks, {recorder.get('gaps')} gaps; "
              f"never fewer than {load.fewest} streams")  # fmt: skip
        return {"us": found, "own_ns": own, "change_percent": change, "shares": shares, "streams": load.fewest}
    finally:
        if load is not None:
            load.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(our.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(our.pid, 0)
        our.close()
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few rounds, to see that it works")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--load", action="store_true", help="ours alone and beside 100 streams and a busy recorder")
    parser.add_argument("--only", default="echo,plain,plain+filter", help="contenders besides ours")
    parser.add_argument("--pause-ms", type=float, default=1.0)
    parser.add_argument("--profile", default="", help="write a Python profile of our process there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    atexit.register(as_before)
    rounds, repeats = (30, 1) if args.smoke else (args.rounds, args.repeats)
    if args.load:
        result = loaded(rounds, repeats, args.pause_ms / 1e3)
    else:
        result = run(rounds, repeats, args.pause_ms / 1e3, args.only.split(","), args.profile)
    if args.json:
        args.json.write_text(json.dumps(result, default=str, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
