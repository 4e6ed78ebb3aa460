"""Every order in a mapped file: what a killed process knew, its successor knows.

A write lies in the page cache as soon as it is made, so it survives any death of the process and costs no system call;
it may be lost with the host, and then the broker's lists, which carry our orderRef, are what is left.

Invariants
1. A slot holds two halves that are written in turn, each with a number and a checksum. Whenever the process dies, the
   newer half that is whole is the order as of the last write that returned, or of the one that was cut short.
2. A slot is given to another order only when its own is done; the ones that were done first go first.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from engine.broker.orders import Order
from engine.domain.codes import OrderState

SLOTS = 4096
"""More than the gate lets live: 20 on each side of 64 symbols."""
HALF = 256
_HEADER = struct.Struct("<8sII64s")
_HEADER_BYTES = 4096
_MAGIC = b"L2ORDERS"
_VERSION = 1
_BODY = struct.Struct("<16q8d12s10B32s")
_CHECK = struct.Struct("<I")
assert _BODY.size + _CHECK.size <= HALF


def boot_number() -> int:
    """A number that changes with every boot of the host."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return 0
    return zlib.crc32(text)


class OrderStore:
    """``symbols`` are the instance's, by number; ``key`` tells accounts and modes apart. Raises ValueError naming the
    file when it is not what it should be: it is never guessed."""

    def __init__(
        self, path: Path, symbols: Sequence[str], key: str, boot: int | None = None, client_id: int = 0
    ) -> None:
        self._path = path
        self._client_id = client_id
        self._client_of: dict[int, int] = {}
        self.former: dict[int, int] = {}
        """How many living orders another client id of ours has placed, by that id: it alone can cancel them."""
        self._names = [s.encode()[:12] for s in symbols]
        self._numbers = {name: k for k, name in enumerate(self._names)}
        self._boot = boot_number() if boot is None else boot
        self._slot_of: dict[int, int] = {}
        self._done: dict[int, None] = {}
        """Intents of orders that are done, oldest first: their slots may be given away."""
        self._turn = bytearray(SLOTS)
        self._number = 0
        self.strangers = 0
        """Living orders of symbols that are not in the universe any more."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(fd).st_size == 0:
                os.ftruncate(fd, _HEADER_BYTES + SLOTS * 2 * HALF)
            size = os.fstat(fd).st_size
            if size != _HEADER_BYTES + SLOTS * 2 * HALF:
                raise ValueError(f"{path}: {size} bytes is not the size of an order store; move it away")
            self._map = mmap.mmap(fd, 0)
        finally:
            os.close(fd)
        self._check_header(key.encode()[:64])
        self._free = list(range(SLOTS - 1, -1, -1))

    def _check_header(self, key: bytes) -> None:
        magic, version, slots, kept = _HEADER.unpack_from(self._map, 0)
        if magic == bytes(8):
            _HEADER.pack_into(self._map, 0, _MAGIC, _VERSION, SLOTS, key)
            return
        if (magic, version, slots) != (_MAGIC, _VERSION, SLOTS):
            raise ValueError(f"{self._path}: not an order store of version {_VERSION}; move it away")
        if kept.rstrip(b"\0") != key:
            raise ValueError(
                f"{self._path}: holds the orders of {kept.rstrip(bytes(1)).decode(errors='replace')!r}, not of "
                f"{key.decode()!r}; use another state_dir, or move it away if that account has no living orders"
            )

    # Reading, once, before the first write.

    def read(self) -> Iterator[tuple[Order, bool]]:
        """All orders of the processes before us, in the order of their last change, and whether each was sent since
        the host booted."""
        found = []
        torn = 0
        for slot in range(SLOTS):
            halves = [self._half(slot, turn) for turn in (0, 1)]
            whole = [(half, turn) for turn, half in enumerate(halves) if isinstance(half, tuple)]
            torn += not whole and any(half is False for half in halves)
            if whole:
                newest, turn = max(whole, key=lambda item: item[0][0])
                self._turn[slot] = turn
                found.append((newest, slot))
        if torn > 1:
            raise ValueError(f"{self._path}: {torn} orders can't be read; restore it from a backup or move it away")
        taken = set()
        for body, slot in sorted(found):
            order = self._decode(body)
            self._number = max(self._number, body[0])
            if order is None:
                continue
            taken.add(slot)
            self._slot_of[order.intent_id] = slot
            if not order.open:
                self._done[order.intent_id] = None
            if body[12]:
                order = self._owned(order, body[12] - 1)
            yield order, body[1] == self._boot
        self._free = [s for s in range(SLOTS - 1, -1, -1) if s not in taken]

    def _owned(self, order: Order, client_id: int) -> Order:
        """Ours to cancel only under the client id that placed it."""
        self._client_of[order.intent_id] = client_id
        if client_id == self._client_id:
            return replace(order, own=True)
        if order.active:
            self.former[client_id] = self.former.get(client_id, 0) + 1
        return replace(order, own=False, text=f"placed under client id {client_id}, which is not ours any more")

    def _half(self, slot: int, turn: int) -> tuple[int, ...] | bool:
        """Fields of a half; True if it was never written, False if it is torn."""
        at = _HEADER_BYTES + (2 * slot + turn) * HALF
        raw = self._map[at : at + _BODY.size]
        (check,) = _CHECK.unpack_from(self._map, at + _BODY.size)
        if not any(raw) and not check:
            return True
        return _BODY.unpack(raw) if zlib.crc32(raw) == check else False

    def _decode(self, body: tuple[int, ...]) -> Order | None:
        (
            _, _, intent_id, order_id, perm_id, sent_ns, acked_ns, changed_ns, cancel_sent_ns, question_ns,
            replace_sent_ns, t_socket_ns, _, inactive, turned_down, _, qty, limit, filled, average, next_qty,
            next_limit, booked, base, name, source, side, order_type, tif, flags, state, entry, own, cancel_wanted,
            presumed, key,
        ) = body  # fmt: skip
        symbol = self._numbers.get(bytes(name).rstrip(b"\0"), -1)  # type: ignore[arg-type]
        if symbol < 0:
            self.strangers += state not in (OrderState.REFUSED, *_DONE)
            return None
        return Order(
            intent_id=intent_id, order_id=order_id, symbol=symbol, source=source, side=1 if side else -1,
            qty=float(qty), order_type=order_type, limit_price=float(limit), tif=tif, flags=flags, entry=bool(entry),
            state=OrderState(state), sent_ns=sent_ns, t_socket_ns=t_socket_ns, filled=float(filled),
            avg_price=float(average), perm_id=perm_id, acked_ns=acked_ns, changed_ns=changed_ns,
            cancel_sent_ns=cancel_sent_ns, question_ns=question_ns, next_qty=float(next_qty),
            next_limit=float(next_limit), own=bool(own), booked=float(booked), base=float(base),
            replace_sent_ns=replace_sent_ns, cancel_wanted=bool(cancel_wanted), presumed=bool(presumed),
            key=bytes(key).rstrip(b"\0"),  # type: ignore[arg-type]
            inactive=bool(inactive), turned_down=bool(turned_down),
        )  # fmt: skip

    # Writing.

    def write(self, o: Order) -> None:
        """Keep an order as it is now. When this returns, no death of the process can undo it."""
        slot = self._slot_of.get(o.intent_id, -1)
        if slot < 0:
            slot = self._slot(o.intent_id)
        self._number += 1
        client = self._client_id if o.own else self._client_of.get(o.intent_id, -1)
        body = _BODY.pack(
            self._number, self._boot, o.intent_id, o.order_id, o.perm_id, o.sent_ns, o.acked_ns, o.changed_ns,
            o.cancel_sent_ns, o.question_ns, o.replace_sent_ns, o.t_socket_ns, client + 1, o.inactive, o.turned_down, 0,
            o.qty, o.limit_price, o.filled, o.avg_price, o.next_qty, o.next_limit, o.booked, o.base,
            self._names[o.symbol], o.source, o.side > 0, o.order_type, o.tif, o.flags, o.state, o.entry, o.own,
            o.cancel_wanted, o.presumed, o.key,
        )  # fmt: skip
        turn = self._turn[slot] = 1 - self._turn[slot]
        at = _HEADER_BYTES + (2 * slot + turn) * HALF
        self._map[at : at + len(body) + 4] = body + _CHECK.pack(zlib.crc32(body))
        if o.open:
            self._done.pop(o.intent_id, None)
        else:
            self._done[o.intent_id] = None

    def _slot(self, intent_id: int) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            oldest = next(iter(self._done), None)
            if oldest is None:
                raise RuntimeError(f"{self._path}: {SLOTS} orders live at once; the gate allows fewer")
            del self._done[oldest]
            slot = self._slot_of.pop(oldest)
        self._slot_of[intent_id] = slot
        return slot

    def close(self) -> None:
        self._map.close()


_DONE = (OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED)
