"""The paper gateway: depth messages to two clients, and the way of an order to its first acknowledgement.

usage: python benchmarks/bench_paper_gateway.py [--smoke]

Topology: the gateway on one core, the clients on another. Depth: two plain sockets each follow all symbols. Orders: in
turns with a bare echo on loopback (a blocking socket on the gateway's core that returns as many bytes as the
acknowledgement has), one order and one echo each time, so that both see the same machine; compared are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from machine import describe

STOCKS = ("AAPL", "MSFT", "AMZN", "GOOGL", "NVDA", "META", "TSLA", "JPM")
ROOT = Path(__file__).resolve().parents[1]


_MINE = sorted(os.sched_getaffinity(0))  # before anything is pinned
SERVER_CORE, CLIENT_CORE = _MINE[0], _MINE[-1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Gateway:
    """A gateway process on its own core, with a clean start."""

    def __init__(self, *options: str) -> None:
        self.port, self.control_port = free_port(), free_port()
        command = [sys.executable, "-m", "engine.cli", "paper-gateway", "--port", str(self.port)]
        command += ["--control-port", str(self.control_port), "--max-messages-per-s", "0", *options]
        command += ["--symbols", ",".join(STOCKS)]
        environment = {n: v for n, v in os.environ.items() if not n.startswith("L2DASH_")}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        os.sched_setaffinity(self.process.pid, {SERVER_CORE})
        self.usage = psutil.Process(self.process.pid)

    def state(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control_port}/state", timeout=10) as answer:
            found: dict[str, float] = json.loads(answer.read())
            return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class Client:
    """A plain socket that speaks just enough of the protocol."""

    def __init__(self, port: int, client_id: int) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), 5)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        offer = b"v157..176"
        self.socket.sendall(b"API\0" + len(offer).to_bytes(4, "big") + offer)
        self.frame()
        self.send(71, 2, client_id, "")
        self.wait_for(b"9\0")

    @staticmethod
    def encode(*fields: object) -> bytes:
        body = b"".join(str(f).encode() + b"\0" for f in fields)
        return len(body).to_bytes(4, "big") + body

    def send(self, *fields: object) -> None:
        self.socket.sendall(self.encode(*fields))

    def frame(self) -> bytes:
        """The next message without its length."""
        while True:
            if len(self.buffer) >= 4:
                end = 4 + int.from_bytes(self.buffer[:4], "big")
                if len(self.buffer) >= end:
                    found, self.buffer = self.buffer[4:end], self.buffer[end:]
                    return found
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the gateway closed the connection")
            self.buffer += data

    def wait_for(self, start: bytes) -> bytes:
        while True:
            found = self.frame()
            if found.startswith(start):
                return found


def contract(symbol: str) -> list[object]:
    return [0, symbol, "STK", "", "0.0", "", "", "SMART", "", "USD", "", ""]


def order(order_id: int, limit: float) -> bytes:
    fields: list[object] = [3, order_id, *contract("AAPL"), "", "", "BUY", 100, "LMT", limit, "", "DAY"]
    fields += ["", "", "", 0, "", 1, 0, 0, 0, 0, 0, 0, 0]
    fields += ["", 0, "", "", "", "", "", "", "", 0, "", -1, 0, "", "", 0, "", "", 0, 0, "", 0, "", "", "", "", "", 0]
    fields += ["", "", "", "", 0, "", "", "", "", "", "", "", "", "", "", 0, "", "", 0, 0, "", "", 0]
    fields += ["", 0, 0, 0, 0, "", "", "", "", "", "", 0, "", "", "", "", "", "", "", "", 0, 0, 0, 0, "", "", 0, "", ""]
    return Client.encode(*fields)


def count_frames(client: Client, start: bytes, left: bytes) -> tuple[int, bytes]:
    """Messages of a kind in what one read returns."""
    data = left + client.socket.recv(1 << 18)
    found, position, size = 0, 0, len(data)
    while position + 4 <= size:
        end = position + 4 + int.from_bytes(data[position : position + 4], "big")
        if end > size:
            break
        if data.startswith(start, position + 4):
            found += 1
        position = end
    return found, data[position:]


def depth(rate: float, seconds: float) -> dict[str, float]:
    """Two clients that follow everything; what arrives, and what it costs the gateway."""
    # The market makes about as many depth messages as asked for; a tenth more is asked for, and counted.
    gateway = Gateway("--messages-per-s", str(rate * 1.1), "--depth-lines", "64")
    try:
        os.sched_setaffinity(0, {CLIENT_CORE})
        clients = [Client(gateway.port, n) for n in (1, 2)]
        for client in clients:
            for number, symbol in enumerate(STOCKS):
                client.send(10, 5, number, *contract(symbol), 10, 1, "")
            client.socket.setblocking(False)
        import select

        counts = [0, 0]
        left = [b"", b""]

        def read(until: float) -> None:
            while (now := time.monotonic()) < until:
                ready, _, _ = select.select([c.socket for c in clients], [], [], until - now)
                for n, client in enumerate(clients):
                    if client.socket in ready:
                        found, left[n] = count_frames(client, b"13\0", left[n])
                        counts[n] += found

        read(time.monotonic() + 2.0)  # the first rows, and the processor's warm-up
        before, used = list(counts), sum(gateway.usage.cpu_times()[:2])
        started = time.monotonic()
        read(started + seconds)
        took = time.monotonic() - started
        used = sum(gateway.usage.cpu_times()[:2]) - used
        each = min(counts[n] - before[n] for n in (0, 1)) / took
        lag = gateway.state()["market_lag_ms"]
        for client in clients:
            client.socket.close()
        return {"per_client_per_s": each, "core_pct": 100 * used / took, "lag_ms": lag}
    finally:
        gateway.stop()


def echo_server(size: int) -> tuple[int, int]:
    """A bare blocking echo in a process of its own on the gateway's core; returns its port and pid."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    pid = os.fork()
    if pid:
        port = int(listener.getsockname()[1])
        listener.close()
        return port, pid
    os.sched_setaffinity(0, {SERVER_CORE})
    peer, _ = listener.accept()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = b"x" * size
    while peer.recv(1 << 16):
        peer.sendall(answer)
    os._exit(0)


def orders(count: int, *options: str) -> dict[str, float]:
    """Median time from sending an order to its first acknowledgement, and of the bare echo, in turns."""
    gateway = Gateway("--messages-per-s", "100", *options)
    pid = 0
    try:
        os.sched_setaffinity(0, {CLIENT_CORE})
        client = Client(gateway.port, 1)
        client.send(*order_probe(1))
        acknowledgement = client.wait_for(b"5\0")
        client.wait_for(b"3\0001\0Submitted")
        client.send(4, 1, 1, "")
        client.wait_for(b"4\0002\0001\000202")
        port, pid = echo_server(len(acknowledgement) + 4)
        echo = socket.create_connection(("127.0.0.1", port))
        echo.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        order_id = 2
        acks: list[float] = []
        echoes: list[float] = []
        message = order(1, 100.0)
        for _ in range(count):
            request = order(order_id, 100.0)
            started = time.perf_counter_ns()
            client.socket.sendall(request)
            client.wait_for(b"5\0")
            acks.append(time.perf_counter_ns() - started)
            client.wait_for(b"3\0%d\0Submitted" % order_id)
            client.send(4, 1, order_id, "")
            client.wait_for(b"4\0002\0%d\000202" % order_id)
            order_id += 1
            started = time.perf_counter_ns()
            echo.sendall(message)
            got = 0
            while got < len(acknowledgement) + 4:
                got += len(echo.recv(1 << 16))
            echoes.append(time.perf_counter_ns() - started)
        echo.close()
        ack_us, echo_us = statistics.median(acks) / 1e3, statistics.median(echoes) / 1e3
        return {"ack_us": ack_us, "echo_us": echo_us, "ratio": ack_us / echo_us}
    finally:
        gateway.stop()
        if pid:
            os.waitpid(pid, 0)


def order_probe(order_id: int) -> list[object]:
    """The fields of the first order, whose acknowledgement tells how long one is."""
    return [field.decode() for field in order(order_id, 100.0)[4:].split(b"\0")[:-1]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    print(describe())
    found = orders(20) if arguments.smoke else orders(2_000)
    print(
        f"place to acknowledgement, median: {found['ack_us']:.0f} us; bare loopback echo: {found['echo_us']:.0f} us; "
        f"ratio {found['ratio']:.2f} (asked: at most 2)"
    )
    with tempfile.TemporaryDirectory() as folder:
        kept = orders(20 if arguments.smoke else 2_000, "--state", f"{folder}/state.json")
    print(f"the same with a state file, in which every order is before it is acknowledged: ratio {kept['ratio']:.2f}")
    rate, seconds = (2_000.0, 2.0) if arguments.smoke else (20_000.0, 10.0)
    flow = depth(rate, seconds)
    print(
        f"depth to each of two clients: {flow['per_client_per_s']:,.0f} messages/s (asked: {rate:,.0f}, ratio "
        f"{flow['per_client_per_s'] / rate:.2f}), "
        f"gateway {flow['core_pct']:.0f} % of one core, market behind by {flow['lag_ms']:.1f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
