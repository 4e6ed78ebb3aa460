"""Reading the orders of one connection faster: what a program's orders have in common is read once.

A message that differs elsewhere, or holds anything unusual in the fields that differ, is left to ``read_place_order``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.paper.fields import UNSET_DOUBLE, FieldError, FieldReader
from engine.paper.place_order import OrderKind, OrderRequest, read_place_order

_CONTRACT, _ACTION, _TRANSMIT = 2, 16, 27
"""First fields of what stays in front, of the part that differs, and of what stays behind it."""
_TEMPLATES = 256


@dataclass(slots=True)
class Template:
    """The bytes that orders of a kind share: contract to secId, order type, tif to origin, transmit to the end."""

    head: bytes
    order_type: bytes
    middle: list[bytes]
    tail: bytes
    kind: OrderKind


class OrderTemplates:
    """The kinds of order that one connection has sent."""

    __slots__ = ("_known", "_last")

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Template] = {}
        self._last: Template | None = None

    def read(self, message: bytes, version: int) -> OrderRequest | None:
        """The request, or None for one that has to be read in full. ``message`` begins with the id of placeOrder."""
        last = self._last
        end = message.find(b"\0", 2)
        if last is None or not message.startswith(last.head, end) or not message.endswith(last.tail):
            return self._other(message, version)
        parts = message[end + len(last.head) : -len(last.tail)].split(b"\0")
        if len(parts) != _TRANSMIT - _ACTION or parts[2] != last.order_type or parts[5:10] != last.middle:
            return self._other(message, version)
        return _filled(last.kind, message[2:end], parts)

    def _other(self, message: bytes, version: int) -> OrderRequest | None:
        parts = message.split(b"\0", _TRANSMIT)
        if len(parts) <= _TRANSMIT:
            return None
        key = (*parts[_CONTRACT:_ACTION], parts[18], *parts[21:26], parts[_TRANSMIT])
        known = self._known.get(key)
        if known is not None:
            self._last = known
            return _filled(known.kind, parts[1], parts[_ACTION:_TRANSMIT])
        if not parts[26].isascii():
            return None
        try:
            reader = FieldReader(message)
            reader.skip("messageId")
            request = read_place_order(reader, version)
        except FieldError:
            return None  # whoever reads it in full says what is wrong
        if len(self._known) >= _TEMPLATES:
            self._known.clear()
        head = b"\0" + b"\0".join(parts[_CONTRACT:_ACTION]) + b"\0"
        tail = b"\0" + parts[_TRANSMIT]
        self._last = self._known[key] = Template(head, parts[18], parts[21:26], tail, request.kind)
        return request


def _filled(kind: OrderKind, order_id: bytes, parts: list[bytes]) -> OrderRequest | None:
    """The request of a kind with these values; ``parts`` are the fields from action to orderRef."""
    action, quantity, _, limit, aux, *_, reference = parts
    if len(order_id) > 12 or len(action) > 12 or not reference.isascii():
        return None
    try:
        number = int(order_id)
        size = float(quantity) if quantity else math.nan
        limit_price = float(limit) if limit else math.nan
        aux_price = float(aux) if aux else math.nan
    except ValueError:
        return None
    if size == UNSET_DOUBLE or limit_price == UNSET_DOUBLE or aux_price == UNSET_DOUBLE:
        return None
    side = _SIDES.get(action) or action.decode("utf-8", "replace").upper()
    return OrderRequest(number, kind, side, size, limit_price, aux_price, reference.decode("ascii"))


_SIDES = {b"BUY": "BUY", b"SELL": "SELL"}
