"""A tap on the loopback interface: every packet between the gateway and its clients, with the kernel's own time.

Adds nothing to what it measures: no proxy, no change to either process. Needs the right to open a packet socket (root
or CAP_NET_RAW). Times are CLOCK_MONOTONIC ns, from the kernel's stamps by the offset of the two clocks.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass

ETH_P_IP = 0x0800
_SO_TIMESTAMPNS = 35
_TO_US = 0
PLACE_ORDER = b"3"


@dataclass(frozen=True, slots=True)
class Packet:
    t_ns: int
    to_gateway: bool
    payload: bytes


def frames(payload: bytes) -> list[list[bytes]]:
    """Whole messages of a payload that begins with one, as their fields."""
    found, at = [], 0
    while at + 4 <= len(payload):
        (size,) = struct.unpack_from(">I", payload, at)
        body = payload[at + 4 : at + 4 + size]
        if not 0 < size < 1 << 20 or len(body) < size:
            break
        found.append(body.split(b"\0"))
        at += 4 + size
    return found


class WireTap:
    """Collects packets of one port in a thread. ``with WireTap(port) as tap: ...; tap.packets``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind(("lo", ETH_P_IP))
        self._socket.settimeout(0.2)
        self._stop = False
        self._lock = threading.Lock()
        self._packets: list[Packet] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> WireTap:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(2.0)
        self._socket.close()

    def take(self) -> list[Packet]:
        """Packets since the last call."""
        with self._lock:
            found, self._packets = self._packets, []
        return found

    def _run(self) -> None:
        while not self._stop:
            try:
                data, ancillary, _, address = self._socket.recvmsg(65_600, 256)
            except TimeoutError:
                continue
            if address[2] != _TO_US:
                continue  # on loopback a packet can be seen twice
            head = (data[0] & 15) * 4
            if len(data) < head + 20 or data[9] != socket.IPPROTO_TCP:
                continue
            source, target = struct.unpack_from(">HH", data, head)
            if self._port not in (source, target):
                continue
            payload = data[head + (data[head + 12] >> 4) * 4 : struct.unpack_from(">H", data, 2)[0] or len(data)]
            if not payload:
                continue
            offset = time.time_ns() - time.monotonic_ns()
            stamp = time.time_ns()
            for _level, kind, value in ancillary:
                if kind == _SO_TIMESTAMPNS:
                    seconds, ns = struct.unpack("qq", value[:16])
                    stamp = seconds * 1_000_000_000 + ns
            packet = Packet(stamp - offset, target == self._port, payload)
            with self._lock:
                self._packets.append(packet)
