"""The register of all orders, by every key that the broker may name them with, backed by a store that survives us."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

from engine.broker.order_store import OrderStore
from engine.broker.orders import Order, after_restart


def another(order: Order, own_id: int, perm_id: int, own_client: bool) -> bool:
    """Do the broker's keys say that this is not ``order``, although both carry the same reference? A copy that a person
    makes in TWS keeps the reference, and so does an order sent twice. ``own_id``: 0 if not under our client id.
    """
    if perm_id and perm_id == order.perm_id:
        return False
    if order.own and own_id:
        return own_id != order.order_id
    if order.own and not own_client:
        return True
    return bool(perm_id and order.perm_id)


def nameless(client_id: int, order_id: int, terms: tuple[object, ...]) -> int:
    """Key of an order of others that has no permId yet: by its number, or by its terms if it has none. No permId is so
    large."""
    low = order_id & 0xFFFFFFFF if order_id else zlib.crc32(repr(terms).encode())
    return -(1 << 62 | (not order_id) << 61 | (client_id & 0xFFFFFFF) << 32 | low)


class Register:
    """All orders of the day by intent, order id and permId. ``put`` returns what changed.

    With a store every change is in the page cache when ``put`` returns, before any byte of the order can leave: a
    process that is killed finds all its orders again.
    """

    def __init__(self, store: OrderStore | None = None) -> None:
        self._store = store
        self.by_intent: dict[int, Order] = {}
        self._intent_of_order: dict[int, int] = {}
        self._intent_of_perm: dict[int, int] = {}
        self._active: dict[int, None] = {}
        self._aliases: dict[int, int] = {}
        self.version = 0
        """Rises with every change of an order."""

    def put(self, order: Order) -> Order | None:
        """Store; returns the former order if something that people see has changed, else None."""
        key = order.intent_id
        old = self.by_intent.get(key)
        self.by_intent[key] = order
        if order.own and order.order_id:
            self._intent_of_order[order.order_id] = key
        if order.perm_id:
            self._intent_of_perm[order.perm_id] = key
        if order.open:
            self._active[key] = None
        else:
            self._active.pop(key, None)
        if old is order:
            return None
        if self._store is not None:
            self._store.write(order)
        self.version += 1
        return old

    def renumber(self, order: Order, order_id: int) -> Order:
        """Another order id for one that has not left yet."""
        self._intent_of_order.pop(order.order_id, None)
        order = replace(order, order_id=order_id)
        self.put(order)
        return order

    def restore(self, now_ns: int) -> list[Order]:
        """Take the orders of the process before us from the store; returns those that were not done."""
        if self._store is None:
            return []
        living = []
        for order, same_boot in self._store.read():
            found = after_restart(order, now_ns, same_boot)
            self.put(found)
            if order.active:
                living.append(found)
        return living

    def find(self, *, intent_id: int = 0, order_id: int = 0, perm_id: int = 0) -> Order | None:
        """By the strongest key that is given and known."""
        intent_id = self._aliases.get(intent_id, intent_id)
        if intent_id and intent_id in self.by_intent:
            return self.by_intent[intent_id]
        found = self.by_intent.get(self._intent_of_perm.get(perm_id, 0)) if perm_id else None
        if found is None and order_id:
            found = self.by_intent.get(self._intent_of_order.get(order_id, 0))
        return found

    def alias(self, intent_id: int, order: Order) -> None:
        """A replacement's intent id also names the order."""
        self._aliases[intent_id] = order.intent_id

    def active(self) -> Iterator[Order]:
        """Orders that count: those that may be filled, and those with a fill that no execution has booked yet."""
        return (self.by_intent[key] for key in tuple(self._active))

    @property
    def active_count(self) -> int:
        return len(self._active)

    def prune(self, before_ns: int) -> int:
        """Forget orders that were done before; returns how many. Their executions stay in the accounts."""
        old = [k for k, o in self.by_intent.items() if not o.open and o.changed_ns < before_ns]
        for key in old:
            del self.by_intent[key]
        if old:  # an order may have had several ids, and may be named by each
            gone = set(old)
            for keys in (self._intent_of_order, self._intent_of_perm, self._aliases):
                for name in [n for n, key in keys.items() if key in gone]:
                    del keys[name]
        return len(old)
