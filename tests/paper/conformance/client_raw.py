"""A client of the TWS protocol in plain Python: a socket, frames and fields, nothing else."""

from __future__ import annotations

import select
import socket
from typing import Any


class RawClient:
    """Keeps every message; the questions of the session are answered by looking through them."""

    def __init__(self, port: int, client_id: int) -> None:
        self.client_id = client_id
        self.messages: list[list[str]] = []
        self.errors: list[tuple[int, int]] = []
        self._next = 0
        self._rules: dict[int, int] = {}
        self._open_from = 0
        self._buffer = b""
        self._gone = False
        self._socket = socket.create_connection(("127.0.0.1", port))
        offer = b"v157..176"
        self._socket.sendall(b"API\0" + len(offer).to_bytes(4, "big") + offer)
        while not self.messages and not self._gone:
            self.pump()
        assert self.messages[0][0] == "176"
        del self.messages[0]
        self.send(71, 2, client_id, "")

    def send(self, *fields: object) -> None:
        body = b"".join(str(int(f) if isinstance(f, bool) else f).encode() + b"\0" for f in fields)
        self._socket.sendall(len(body).to_bytes(4, "big") + body)

    def pump(self) -> None:
        if self._gone or not select.select([self._socket], [], [], 0.01)[0]:
            return
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._gone = True
            return
        self._buffer += data
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < 4 + length:
                break
            fields = self._buffer[4 : 4 + length].decode().split("\0")[:-1]
            self._buffer = self._buffer[4 + length :]
            self.messages.append(fields)
            if fields[0] == "4":
                self.errors.append((int(fields[2]), int(fields[3])))

    def of(self, message_id: int) -> list[list[str]]:
        return [m for m in self.messages if m[0] == str(message_id)]

    def ended(self, message_id: int, req_id: int) -> bool:
        return any(m[-1] == str(req_id) for m in self.of(message_id))

    def connected(self) -> bool:
        return bool(self.of(15) and self.of(9))

    def close(self) -> None:
        self._socket.close()
        self._gone = True

    def new_id(self) -> int:
        self._next = max(self._next + 1, int(self.of(9)[-1][2]))
        return self._next

    @staticmethod
    def contract(contract: tuple[str, str, str, str]) -> list[object]:
        symbol, kind, exchange, currency = contract
        return [0, symbol, kind, "", "0.0", "", "", exchange, "", currency, "", ""]

    def req_details(self, req_id: int, contract: Any) -> None:
        self.send(9, 8, req_id, *self.contract(contract), 0, "", "", "")

    def details(self, req_id: int) -> list[dict[str, Any]]:
        if not self.ended(52, req_id):
            return []
        rows = [m for m in self.of(10) if m[1] == str(req_id)]
        return [{"con_id": int(m[12]), "min_tick": float(m[13]), "rules": m[-6]} for m in rows]

    def req_rule(self, rule: int) -> None:
        self.send(91, rule)

    def rule(self, rule: int) -> list[tuple[float, float]]:
        return [(float(m[3]), float(m[4])) for m in self.of(93) if m[1] == str(rule)]

    def req_summary(self) -> None:
        self.send(62, 1, 9001, "All", "NetLiquidation,BuyingPower")

    def summary(self) -> dict[str, str]:
        return {m[4]: m[5] for m in self.of(63)} if self.ended(64, 9001) else {}

    def req_depth(self, req_id: int, contract: Any, rows: int) -> None:
        self.send(10, 5, req_id, *self.contract(contract), rows, 1, "")

    def cancel_depth(self, req_id: int) -> None:
        self.send(11, 1, req_id, 1)

    def depth(self, req_id: int) -> list[tuple[int, int, int, float, float]]:
        rows = [m for m in self.of(13) if m[2] == str(req_id)]
        return [(int(m[6]), int(m[5]), int(m[3]), float(m[7]), float(m[8])) for m in rows]

    def req_quotes(self, req_id: int, contract: Any) -> None:
        self.send(1, 11, req_id, *self.contract(contract), 0, "", 0, 0, "")

    def cancel_quotes(self, req_id: int) -> None:
        self.send(2, 2, req_id)

    def quotes(self, req_id: int) -> dict[int, float]:
        return {int(m[3]): float(m[4]) for m in self.of(1) if m[2] == str(req_id)}

    def req_ticks(self, req_id: int, contract: Any, kind: str) -> None:
        self.send(97, req_id, *self.contract(contract), kind, 0, 0)

    def cancel_ticks(self, req_id: int) -> None:
        self.send(98, req_id)

    def ticks(self, req_id: int) -> int:
        return sum(m[1] == str(req_id) for m in self.of(99))

    def req_bars(self, req_id: int, contract: Any, what: str) -> None:
        self.send(20, req_id, *self.contract(contract), 0, "", "1 min", "1800 S", 0, what, 1, 0, "")

    def bars(self, req_id: int) -> list[tuple[float, float, float, float]]:
        for m in self.of(17):
            if m[1] == str(req_id):
                rows = [m[5 + 8 * n : 13 + 8 * n] for n in range(int(m[4]))]
                return [(float(r[1]), float(r[2]), float(r[3]), float(r[4])) for r in rows]
        return []

    def req_past_ticks(self, req_id: int, contract: Any, what: str) -> None:
        self.send(96, req_id, *self.contract(contract), 0, "20200101 00:00:00", "", 100, what, 0, 0, "")

    def past_ticks(self, req_id: int) -> int:
        return sum(int(m[2]) for i in (96, 97, 98) for m in self.of(i) if m[1] == str(req_id))

    def _order(
        self, order_id: int, contract: Any, action: str, quantity: float, kind: str, limit: Any, what_if: int
    ) -> None:
        fields: list[object] = [3, order_id, *self.contract(contract), "", "", action, quantity, kind, limit, "", "DAY"]
        fields += ["", "", "", 0, "", 1, 0, 0, 0, 0, 0, 0, 0]  # ocaGroup .. hidden
        fields += [
            "",
            0,
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            0,
            "",
            -1,
            0,
            "",
            "",
            0,
            "",
            "",
            0,
            0,
            "",
            0,
            "",
            "",
            "",
            "",
            "",
            0,
        ]
        fields += ["", "", "", "", 0, "", "", "", "", "", "", "", "", "", "", 0, "", "", 0, 0, "", "", what_if]
        fields += [
            "",
            0,
            0,
            0,
            0,
            "",
            "",
            "",
            "",
            "",
            "",
            0,
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            0,
            0,
            0,
            0,
            "",
            "",
            0,
            "",
            "",
        ]
        self.send(*fields)

    def what_if(self, order_id: int, contract: Any, action: str, quantity: float, limit: float) -> None:
        self._order(order_id, contract, action, quantity, "LMT", limit, 1)

    def what_if_result(self, order_id: int) -> tuple[float, float] | None:
        for m in self.of(5):
            if m[1] == str(order_id) and m[93] == "1":
                return float(m[101]), float(m[104])
        return None

    def place(self, order_id: int, contract: Any, action: str, quantity: float, kind: str, limit: float) -> None:
        self._order(order_id, contract, action, quantity, kind, limit if kind == "LMT" else "", 0)

    def cancel(self, order_id: int) -> None:
        self.send(4, 1, order_id, "")

    def global_cancel(self) -> None:
        self.send(58, 1)

    def status(self, order_id: int) -> tuple[str, float, float, int]:
        for m in reversed(self.of(3)):
            if m[1] == str(order_id) and m[9] == str(self.client_id):
                return m[2], float(m[3]), float(m[4]), int(m[6])
        return "", 0.0, 0.0, 0

    def order_of_perm(self, perm_id: int) -> tuple[int, str] | None:
        for m in reversed(self.of(3)):
            if m[6] == str(perm_id):
                return int(m[1]), m[2]
        return None

    def executions(self, order_id: int) -> list[tuple[str, float, float]]:
        commissions = {m[2]: float(m[3]) for m in self.of(59)}
        found = {m[14]: float(m[19]) for m in self.of(11) if m[2] == str(order_id)}
        return [(e, shares, commissions[e]) for e, shares in found.items() if e in commissions]

    def req_executions(self, req_id: int) -> None:
        self.send(7, 3, req_id, 0, "", "", "", "", "", "")

    def executions_end(self, req_id: int) -> bool:
        return self.ended(55, req_id)

    def req_pnl(self, req_id: int) -> None:
        self.send(92, req_id, "DUSIM001", "")

    def pnl(self, req_id: int) -> float | None:
        return next((float(m[2]) for m in self.of(94) if m[1] == str(req_id)), None)

    def req_open(self, everyone: bool) -> None:
        self._open_from = len(self.messages)
        self.send(16 if everyone else 5, 1)

    def req_completed(self) -> None:
        self.send(99, 0)

    def completed(self) -> list[tuple[int, str]] | None:
        if not self.of(102):
            return None
        # The status is the first word of the kind behind the order: where it stands depends on the fields between.
        words = ("Filled", "Cancelled", "Inactive")
        return [(int(m[23]), next(f for f in m[24:] if f in words)) for m in self.of(101)]

    def auto_bind(self) -> None:
        self.send(15, 1, 1)

    def open_ids(self) -> set[int] | None:
        found: set[int] = set()
        for m in self.messages[self._open_from :]:
            if m[0] == "5":
                found.add(int(m[25]))
            if m[0] == "53":
                return found
        return None


def connect(family: str, port: int, client_id: int) -> RawClient:
    return RawClient(port, client_id)
