"""Subscriptions of one kind, by symbol: who asked under which request id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Subscriber(Protocol):
    """A connection that market data can be sent to."""

    def send(self, message: bytes) -> None: ...

    def push(self, framed: bytes) -> None:
        """Queue bytes that already carry their length."""

    def error(self, req_id: int, code: int, message: str) -> None: ...


class Line(Protocol):
    """One subscription."""

    client: Subscriber
    req_id: int
    symbol: int


L = TypeVar("L", bound=Line)


class Lines(Generic[L]):
    """All subscriptions of one kind."""

    def __init__(self, symbols: Iterable[int]) -> None:
        self._of: dict[int, list[L]] = {symbol: [] for symbol in symbols}

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[L]:
        return (line for group in self._of.values() for line in group)

    def of(self, symbol: int) -> list[L]:
        """Subscriptions of one symbol; not to be changed."""
        return self._of[symbol]

    def add(self, line: L) -> None:
        self._of[line.symbol].append(line)

    def find(self, client: Subscriber, req_id: int) -> L | None:
        return next((line for line in self if line.client is client and line.req_id == req_id), None)

    def remove(self, line: L) -> None:
        self._of[line.symbol].remove(line)

    def take(self, symbol: int) -> list[L]:
        """Remove and return all subscriptions of a symbol."""
        taken, self._of[symbol] = self._of[symbol], []
        return taken

    def forget(self, client: Subscriber) -> None:
        """A connection is gone."""
        for symbol, group in self._of.items():
            self._of[symbol] = [line for line in group if line.client is not client]

    def clear(self) -> None:
        for symbol in self._of:
            self._of[symbol] = []
