"""Makes the tiny message and order-book pair under ``tests/data`` from the synthetic market: no real market data.

Run it from the root of the checkout: ``python tests/paper_market/make_tiny_lobster.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.domain.instruments import Instrument  # noqa: E402
from engine.paper.market.synthetic import SyntheticMarket  # noqa: E402
from engine.paper.port import MARKET_EVENT, MarketEventKind  # noqa: E402

LEVELS = 5
START_S, END_S = 34_200, 34_500
STEM = f"TINY_2024-01-02_{START_S}000_{END_S}000"
Side = list[tuple[int, int]]


def _side(rows: np.ndarray) -> Side:
    return [(round(p * 10_000), int(s)) for p, s in rows]


def _book_row(bids: Side, asks: Side) -> str:
    cells: list[int] = []
    for level in range(LEVELS):
        cells += asks[level] if level < len(asks) else (9_999_999_999, 0)
        cells += bids[level] if level < len(bids) else (-9_999_999_999, 0)
    return ",".join(map(str, cells))


def make(seed: int = 5) -> tuple[str, str]:
    """Text of the message and of the order-book file."""
    market = SyntheticMarket([Instrument(0, "TINY", 1, start_price=50.0)], None, seed, levels=20, messages_per_s=2.5)
    out = np.zeros(4096, MARKET_EVENT)
    market.poll(out)
    messages: list[str] = []
    books: list[str] = []
    order_id = 1000

    def write(t_ns: int, kind: int, oid: int, size: int, price: int, direction: int, bids: Side, asks: Side) -> None:
        messages.append(f"{START_S + t_ns // 10**9}.{t_ns % 10**9:09d},{kind},{oid},{size},{price},{direction}")
        books.append(_book_row(bids, asks))

    bids, asks = map(_side, market.snapshot(0))
    halted = False
    while market.next_ns() < (END_S - START_S) * 10**9:
        t = market.next_ns()
        market.advance(t)
        events = out[: market.poll(out)]
        for e in events[events["kind"] == MarketEventKind.TRADE]:
            order_id += 1
            price, size, direction = round(e["price"] * 10_000), int(e["size"]), -int(e["side"])
            book = bids if direction == 1 else asks
            assert book[0][0] == price
            book[0] = (price, book[0][1] - size)
            if book[0][1] == 0:
                del book[0]
            write(t, 4, order_id, size, price, direction, bids, asks)
            if order_id % 7 == 0:  # some trades also meet hidden size
                write(t, 5, 0, 10, price, direction, bids, asks)
        new_bids, new_asks = map(_side, market.snapshot(0))
        for direction, old, new in ((1, bids, new_bids), (-1, asks, new_asks)):
            visible = {p for p, _ in old[:LEVELS]} | {p for p, _ in new[:LEVELS]}
            before, after = dict(old), dict(new)
            for price in visible:
                change = after.get(price, 0) - before.get(price, 0)
                if change:
                    order_id += 1
                    kind = 1 if change > 0 else 2 if price in after else 3
                    write(t, kind, order_id, abs(change), price, direction, new_bids, new_asks)
        bids, asks = new_bids, new_asks
        if t > 240 * 10**9 and not halted:
            halted = True
            for mark, wait_s in ((-1, 1), (0, 3), (1, 4)):
                write(t + wait_s * 10**9, 7, 0, 0, mark, -1, bids, asks)
            market.halt(0)
            market.advance(t + 4 * 10**9)
            market.resume(0)
            market.poll(out)
    return "\n".join(messages) + "\n", "\n".join(books) + "\n"


def main() -> None:
    folder = ROOT / "tests" / "data"
    folder.mkdir(exist_ok=True)
    for kind, text in zip(("message", "orderbook"), make(), strict=True):
        (folder / f"{STEM}_{kind}_{LEVELS}.csv").write_text(text)


if __name__ == "__main__":
    main()
