"""The scripted session that every client library has to pass, written once against a small blocking interface.

It runs inside the environment of the library under test: plain Python, nothing of the product is imported. Usage:
``python session.py FAMILY PORT CONTROL_PORT`` with FAMILY one of ib_insync, ib_async, ibapi, raw. The last line of the
output is JSON: feature to ``ok`` or to what went wrong.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

PATIENCE_S = 20.0
AAPL = ("AAPL", "STK", "SMART", "USD")
MSFT = ("MSFT", "STK", "SMART", "USD")
STOCKS = ("AAPL", "MSFT", "AMZN", "GOOGL", "NVDA", "META", "TSLA", "JPM")

FEATURES = (
    "connect",
    "contracts",
    "market rules",
    "account summary",
    "depth",
    "top of book",
    "tick-by-tick",
    "historical bars",
    "BID_ASK bars",
    "historical ticks",
    "what-if",
    "place",
    "modify",
    "cancel",
    "partial fills",
    "executions",
    "completed orders",
    "P&L",
    "several clients",
    "client id 0 binds manual orders",
    "master client",
    "permId",
    "global cancel",
    "error 200",
    "error 201",
    "error 202",
    "error 309",
    "error 321",
    "error 322",
    "error 326",
    "error 10147",
    "error 10148",
    "error 10197",
)

Contract = tuple[str, str, str, str]
"""Symbol, security type, exchange, currency."""


class Client(Protocol):
    """One connection, as the session uses it. Requests return at once; answers are looked at later."""

    errors: list[tuple[int, int]]  # request or order id, code

    def connected(self) -> bool: ...
    def close(self) -> None: ...
    def pump(self) -> None:
        """Let the library work for a few milliseconds."""

    def new_id(self) -> int: ...
    def req_details(self, req_id: int, contract: Contract) -> None: ...
    def details(self, req_id: int) -> list[dict[str, Any]]:
        """con_id, min_tick and rules of the contracts found; empty until the end message has come."""

    def req_rule(self, rule: int) -> None: ...
    def rule(self, rule: int) -> list[tuple[float, float]]: ...
    def req_summary(self) -> None: ...
    def summary(self) -> dict[str, str]: ...
    def req_depth(self, req_id: int, contract: Contract, rows: int) -> None: ...
    def cancel_depth(self, req_id: int) -> None: ...
    def depth(self, req_id: int) -> list[tuple[int, int, int, float, float]]:
        """Row operations in the order of their arrival: side, operation, row, price, size."""

    def req_quotes(self, req_id: int, contract: Contract) -> None: ...
    def cancel_quotes(self, req_id: int) -> None: ...
    def quotes(self, req_id: int) -> dict[int, float]:
        """Newest price by tick type: 1 bid, 2 ask."""

    def req_ticks(self, req_id: int, contract: Contract, kind: str) -> None: ...
    def cancel_ticks(self, req_id: int) -> None: ...
    def ticks(self, req_id: int) -> int:
        """How many have come."""

    def req_bars(self, req_id: int, contract: Contract, what: str) -> None: ...
    def bars(self, req_id: int) -> list[tuple[float, float, float, float]]:
        """Open, high, low, close."""

    def req_past_ticks(self, req_id: int, contract: Contract, what: str) -> None: ...
    def past_ticks(self, req_id: int) -> int: ...
    def what_if(self, order_id: int, contract: Contract, action: str, quantity: float, limit: float) -> None: ...
    def what_if_result(self, order_id: int) -> tuple[float, float] | None:
        """Initial margin after it, and commission."""

    def place(
        self, order_id: int, contract: Contract, action: str, quantity: float, kind: str, limit: float
    ) -> None: ...
    def cancel(self, order_id: int) -> None: ...
    def global_cancel(self) -> None: ...
    def status(self, order_id: int) -> tuple[str, float, float, int]:
        """Status, filled, remaining, permId; the status is empty while nothing is known."""

    def order_of_perm(self, perm_id: int) -> tuple[int, str] | None:
        """Order id and status of an order known by its permId, also those of other clients."""

    def executions(self, order_id: int) -> list[tuple[str, float, float]]:
        """Execution id, shares, commission of those that came with both; live or asked for."""

    def req_executions(self, req_id: int) -> None: ...
    def executions_end(self, req_id: int) -> bool: ...
    def req_pnl(self, req_id: int) -> None: ...
    def pnl(self, req_id: int) -> float | None:
        """Daily P&L."""

    def req_open(self, everyone: bool) -> None: ...
    def auto_bind(self) -> None: ...
    def req_completed(self) -> None: ...
    def completed(self) -> list[tuple[int, str]] | None:
        """permId and status of the orders that have ended; None until the end message has come."""

    def open_ids(self) -> set[int] | None:
        """permIds of the answer to ``req_open``; None until it is complete."""


class Session:
    """Runs the steps and keeps what became of each feature."""

    def __init__(self, connect: Callable[[int], Client], control_port: int) -> None:
        self.connect = connect
        self.control_port = control_port
        self.results = dict.fromkeys(FEATURES, "not reached")
        self.a: Any = None
        self.limit = 0.0

    @contextmanager
    def feature(self, name: str) -> Iterator[None]:
        assert name in FEATURES, name
        try:
            yield
            self.results[name] = "ok"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.results[name] = f"{type(error).__name__}: {error} ({last.name}:{last.lineno}: {last.line})"

    def until(self, condition: Callable[[], Any], *others: Client) -> Any:
        end = time.monotonic() + PATIENCE_S
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise TimeoutError("never happened")
            for client in (self.a, *others):
                if client is not None:
                    client.pump()

    def control(self, fault: str, **args: Any) -> None:
        body = json.dumps({"fault": fault, "args": args}).encode()
        url = f"http://127.0.0.1:{self.control_port}/faults"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def run(self) -> dict[str, str]:
        with self.feature("connect"):
            self.a = self.connect(11)
            self.until(self.a.connected)
        if self.results["connect"] != "ok":
            return self.results
        for step in (self.reference, self.market_data, self.history, self.orders, self.clients, self.refusals):
            step()
        self.a.close()
        return self.results

    def reference(self) -> None:
        a = self.a
        rules: list[int] = []
        with self.feature("contracts"):
            ids = [a.new_id() for _ in STOCKS]
            for req_id, symbol in zip(ids, STOCKS, strict=True):
                a.req_details(req_id, (symbol, "STK", "SMART", "USD"))
            found = [self.until(lambda r=req_id: a.details(r))[0] for req_id in ids]
            assert found[0]["con_id"] == 265598
            assert found[0]["min_tick"] == 0.01
            assert len({f["con_id"] for f in found}) == len(STOCKS)
            rules = [int(r) for r in found[0]["rules"].split(",")]
        with self.feature("market rules"):
            a.req_rule(rules[0])
            steps = self.until(lambda: a.rule(rules[0]))
            assert tuple(steps[0]) == (0.0, 0.01)
        with self.feature("account summary"):
            a.req_summary()
            summary = self.until(lambda: a.summary())
            assert float(summary["NetLiquidation"]) == 1_000_000.0
            assert float(summary["BuyingPower"]) > 1_000_000.0

    def market_data(self) -> None:
        a = self.a
        with self.feature("depth"):
            req_id = a.new_id()
            a.req_depth(req_id, AAPL, 10)
            self.until(lambda: len(a.depth(req_id)) > 60)
            book: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
            for side, operation, row, price, size in a.depth(req_id):
                rows = book[side]
                assert row <= len(rows) - (operation != 0), "a row that can't be"
                if operation == 0:
                    rows.insert(row, (price, size))
                elif operation == 1:
                    rows[row] = (price, size)
                else:
                    del rows[row]
            assert 1 <= len(book[0]) <= 10
            assert [p for p, _ in book[0]] == sorted(p for p, _ in book[0])
            assert [p for p, _ in book[1]] == sorted((p for p, _ in book[1]), reverse=True)
            a.cancel_depth(req_id)
        with self.feature("top of book"):
            req_id = a.new_id()
            a.req_quotes(req_id, AAPL)
            self.until(lambda: {1, 2} <= set(a.quotes(req_id)))
            quotes = a.quotes(req_id)
            assert 0 < quotes[1] < quotes[2]
            self.limit = quotes[1]
            a.cancel_quotes(req_id)
        with self.feature("tick-by-tick"):
            for kind in ("BidAsk", "Last", "AllLast", "MidPoint"):
                req_id = a.new_id()
                a.req_ticks(req_id, AAPL, kind)
                self.until(lambda r=req_id: a.ticks(r) >= 2)
                a.cancel_ticks(req_id)

    def history(self) -> None:
        a = self.a
        with self.feature("historical bars"):
            req_id = a.new_id()
            a.req_bars(req_id, AAPL, "TRADES")
            for opened, high, low, close in self.until(lambda: a.bars(req_id)):
                assert low <= min(opened, close)
                assert max(opened, close) <= high
        with self.feature("BID_ASK bars"):
            req_id = a.new_id()
            a.req_bars(req_id, AAPL, "BID_ASK")
            for bid, highest_ask, lowest_bid, ask in self.until(lambda: a.bars(req_id)):
                assert lowest_bid <= bid < ask <= highest_ask
        with self.feature("historical ticks"):
            for what in ("TRADES", "BID_ASK", "MIDPOINT"):
                req_id = a.new_id()
                a.req_past_ticks(req_id, AAPL, what)
                self.until(lambda r=req_id: a.past_ticks(r) > 0)

    def orders(self) -> None:
        a = self.a
        far = round(self.limit * 0.9, 2)
        with self.feature("what-if"):
            order_id = a.new_id()
            a.what_if(order_id, AAPL, "BUY", 100, far)
            margin, commission = self.until(lambda: a.what_if_result(order_id))
            assert abs(margin - 50 * far) < 1
            assert commission == 1.0
        order_id = a.new_id()
        with self.feature("place"):
            a.place(order_id, AAPL, "BUY", 100, "LMT", far)
            self.until(lambda: a.status(order_id)[0] == "Submitted")
            assert a.status(order_id)[1:3] == (0, 100)
        with self.feature("permId"):
            perm_id = a.status(order_id)[3]
            assert perm_id > 0
            assert self.until(lambda: a.order_of_perm(perm_id))[0] == order_id
        with self.feature("modify"):
            a.place(order_id, AAPL, "BUY", 80, "LMT", round(far + 0.01, 2))
            self.until(lambda: a.status(order_id)[2] == 80)
            assert a.status(order_id)[3] == perm_id
        with self.feature("partial fills"):
            self.control("fill", symbol="AAPL", quantity=30)
            self.until(lambda: a.status(order_id)[1] == 30)
            assert a.status(order_id)[2] == 50
            self.control("fill", symbol="AAPL", quantity=20)
            self.until(lambda: len(a.executions(order_id)) == 2)
            assert [shares for _, shares, _ in a.executions(order_id)] == [30, 20]
            assert a.status(order_id)[0] == "Submitted"
        with self.feature("executions"):
            req_id = a.new_id()
            a.req_executions(req_id)
            self.until(lambda: a.executions_end(req_id))
            found = a.executions(order_id)
            assert len({exec_id for exec_id, _, _ in found}) == 2
            assert sum(commission for _, _, commission in found) == 1.0
        with self.feature("P&L"):
            req_id = a.new_id()
            a.req_pnl(req_id)
            daily = self.until(lambda: a.pnl(req_id) is not None and (a.pnl(req_id),))
            assert isinstance(daily[0], float)
        with self.feature("cancel"):
            a.cancel(order_id)
            self.until(lambda: a.status(order_id)[0] == "Cancelled")
            assert a.status(order_id)[1:3] == (50, 30)
        with self.feature("error 202"):
            self.until(lambda: (order_id, 202) in a.errors)
        with self.feature("error 10148"):
            filled = a.new_id()
            a.place(filled, AAPL, "SELL", 50, "MKT", 0.0)
            self.until(lambda: a.status(filled)[0] == "Filled")
            a.cancel(filled)
            self.until(lambda: (filled, 10148) in a.errors)
        with self.feature("completed orders"):
            a.req_completed()
            ended = dict(self.until(lambda: a.completed()))
            assert ended[perm_id] == "Cancelled"
            assert ended[a.status(filled)[3]] == "Filled"

    def clients(self) -> None:
        a = self.a
        far = round(self.limit * 0.9, 2)
        with self.feature("error 326"):
            assert self._refused(11)
        with self.feature("several clients"):
            b = self.connect(12)
            self.until(b.connected, b)
            mine, theirs = a.new_id(), b.new_id()
            a.place(mine, AAPL, "BUY", 10, "LMT", far)
            b.place(theirs, MSFT, "BUY", 10, "LMT", 200.0)
            self.until(lambda: a.status(mine)[0] == b.status(theirs)[0] == "Submitted", b)
            perms = {a.status(mine)[3], b.status(theirs)[3]}
            b.req_open(everyone=False)
            assert self.until(b.open_ids, b) == {b.status(theirs)[3]}
            b.req_open(everyone=True)
            assert self.until(b.open_ids, b) == perms
        with self.feature("client id 0 binds manual orders"):
            zero = self.connect(0)
            self.until(zero.connected, zero)
            zero.auto_bind()
            zero.req_open(everyone=False)
            self.until(lambda: zero.open_ids() is not None, b, zero)
            self.control("manual_order", symbol="AAPL", action="BUY", quantity=7, limit=far)
            b.req_open(everyone=True)
            manual = (self.until(lambda: (b.open_ids() or set()) - perms, b, zero)).pop()
            self.until(lambda: zero.order_of_perm(manual), b, zero)
            bound = zero.order_of_perm(manual)[0]
            assert bound < 0, "a manual order is bound under a negative id"
            zero.cancel(bound)
            self.until(lambda: zero.order_of_perm(manual)[1] == "Cancelled", b, zero)
            zero.close()
        with self.feature("master client"):
            master = self.connect(99)
            self.until(master.connected, master)
            seen = b.new_id()
            b.place(seen, MSFT, "BUY", 5, "LMT", 199.0)
            self.until(lambda: b.status(seen)[0] == "Submitted", b, master)
            perm_id = b.status(seen)[3]
            self.until(lambda: master.order_of_perm(perm_id), b, master)
            master.cancel(seen)  # it may watch, not touch
            self.until(lambda: any(code == 10147 for _, code in master.errors), b, master)
            assert b.status(seen)[0] == "Submitted"
            master.close()
        with self.feature("global cancel"):
            b.global_cancel()
            self.until(lambda: a.status(mine)[0] == b.status(theirs)[0] == "Cancelled", b)
            b.close()

    def _refused(self, client_id: int) -> bool:
        """A second connection under an id in use."""
        second = self.connect(client_id)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if any(code == 326 for _, code in second.errors):
                return True
            second.pump()
        return False

    def refusals(self) -> None:
        a = self.a
        with self.feature("error 200"):
            req_id = a.new_id()
            a.req_details(req_id, ("NOSUCH", "STK", "SMART", "USD"))
            self.until(lambda: (req_id, 200) in a.errors)
        with self.feature("error 321"):
            req_id = a.new_id()
            a.req_details(req_id, ("AAPL", "XXX", "SMART", "USD"))
            self.until(lambda: (req_id, 321) in a.errors)
        with self.feature("error 201"):
            order_id = a.new_id()
            a.place(order_id, AAPL, "BUY", 1_000_000, "LMT", round(self.limit * 0.9, 2))
            self.until(lambda: (order_id, 201) in a.errors)
        with self.feature("error 10147"):
            order_id = a.new_id()
            a.cancel(order_id)
            self.until(lambda: (order_id, 10147) in a.errors)
        with self.feature("error 322"):
            req_id = a.new_id()
            a.req_depth(req_id, AAPL, 5)
            self.until(lambda: a.depth(req_id))
            a.req_depth(req_id, AAPL, 5)
            self.until(lambda: (req_id, 322) in a.errors)
            a.cancel_depth(req_id)
        with self.feature("error 309"):
            ids = [a.new_id() for _ in range(4)]
            for req_id, symbol in zip(ids, STOCKS, strict=False):
                a.req_depth(req_id, (symbol, "STK", "SMART", "USD"), 5)
            self.until(lambda: (ids[3], 309) in a.errors)
            for req_id in ids[:3]:
                a.cancel_depth(req_id)
        with self.feature("error 10197"):
            req_id = a.new_id()
            a.req_quotes(req_id, MSFT)
            self.until(lambda: a.quotes(req_id))
            self.control("competing_session", data_stays=True)
            self.until(lambda: (req_id, 10197) in a.errors)


def main() -> int:
    family, port, control_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    module = importlib.import_module(
        {"ib_async": "client_ib", "ib_insync": "client_ib"}.get(family, f"client_{family}")
    )
    results = Session(lambda client_id: module.connect(family, port, client_id), control_port).run()
    print(json.dumps(results))
    return 0 if all(result == "ok" for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
