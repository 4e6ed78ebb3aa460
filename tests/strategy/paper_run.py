"""The strategy against the paper market in one thread: books, filter, strategy, matching, costs, all on its clock."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from engine.domain.codes import Side, TimeInForce
from engine.domain.instruments import SIM_UNIVERSE
from engine.market.state import NEWS, Market
from engine.model.filter import RegimeFilter
from engine.model.history import ticks_of
from engine.model.params import Model
from engine.paper.account import commission_total
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT, MarketEventKind
from engine.strategy.protocol import Cancel, Purpose, Situation, Working
from engine.strategy.regime import Parameters, RegimeStrategy
from shm.layouts import MODEL

STEP_NS = 20_000_000
PARAMETERS = Parameters(40_000, 300_000, 6_000, 2_500, 0.7, 0.35, 20_000_000_000, 3_000_000_000, 2_000_000_000)


@dataclass
class Run:
    """What happened. ``worst_symbol_usd`` and ``worst_gross_usd`` count working orders as filled."""

    intents: int = 0
    entries: int = 0
    round_trips: int = 0
    pnl_usd: float = 0.0
    commissions_usd: float = 0.0
    worst_symbol_usd: float = 0.0
    worst_gross_usd: float = 0.0
    most_intents_in_a_second: int = 0
    why: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    by_regime: dict[int, int] = field(default_factory=lambda: defaultdict(int))


def run(model: Model, seed: int, seconds: float, p: Parameters = PARAMETERS) -> Run:
    result = Run()
    source = SyntheticMarket(SIM_UNIVERSE, None, seed, 10, start_ns=1, messages_per_s=1000.0)
    market = Market(SIM_UNIVERSE)
    models = np.zeros(len(SIM_UNIVERSE), MODEL)
    regimes = RegimeFilter(models)
    regimes.load(model)
    strategy = RegimeStrategy(p)
    n = len(SIM_UNIVERSE)
    qty, cash = np.zeros(n), np.zeros(n)
    orders: dict[int, dict[str, object]] = {}
    buffer = np.zeros(1 << 15, MARKET_EVENT)
    key, now, second = 0, 1, defaultdict(int)
    commissions = 0.0

    def finish(k: int) -> None:
        nonlocal commissions
        o = orders.pop(k)
        if o["filled"] > 0:
            commissions += commission_total(o["filled"], o["filled"] * o["price"])

    for _ in range(int(seconds * 1e9) // STEP_NS):
        now += STEP_NS
        source.advance(now)
        count = source.poll(buffer)
        events = buffer[:count]
        for e in events[(events["kind"] == MarketEventKind.OWN_FILL) | (events["kind"] == MarketEventKind.OWN_DONE)]:
            k, s = int(e["order_key"]), int(e["symbol"])
            if e["kind"] == MarketEventKind.OWN_FILL:
                signed = float(e["size"]) * int(e["side"])
                before = qty[s]
                qty[s] += signed
                cash[s] -= signed * float(e["price"])
                result.round_trips += before != 0 and qty[s] == 0
                orders[k]["filled"] += float(e["size"])
                if orders[k]["filled"] >= orders[k]["qty"] - 1e-9:
                    finish(k)
            elif k in orders:
                finish(k)
        for bars in market.drain(ticks_of(events)):
            regimes.step(bars["symbol"], bars["x"], bars["valid"], int(bars["t_end_ns"][0]))
            market.refresh_medians()
        _, signals = market.publish(models, now, NEWS)
        books = market.books
        mids = np.nan_to_num(books["mid"][:n])
        works = [[sum(o["qty"] - o["filled"] for o in orders.values() if o["symbol"] == s and o["side"] == side)
                  for side in (Side.BUY, Side.SELL)] for s in range(n)]  # fmt: skip
        worst = [max(abs(qty[s] + works[s][0]), abs(qty[s] - works[s][1])) * mids[s] for s in range(n)]
        result.worst_symbol_usd = max(result.worst_symbol_usd, *worst)
        result.worst_gross_usd = max(result.worst_gross_usd, sum(worst))
        pnl = float((cash + qty * mids).sum()) - commissions
        due = {int(s) for s in signals["symbol"]} | {s for s in range(n) if strategy.busy(s)}
        due |= {int(o["symbol"]) for o in orders.values()}
        for s in sorted(due):
            b, m = books[s], models[s]
            situation = Situation(
                s, 0.01, float(b["bid_price"][0]), float(b["ask_price"][0]), float(b["bid_size"][0]),
                float(b["ask_size"][0]), float(b["micro_price"]), float(b["spread_median_bps"]),
                bool(b["valid"]) and b["bid_price"][0] < b["ask_price"][0], bool(m["valid"]), bool(m["warming"]),
                int(m["regime"]), int(m["states"]), float(m["confidence_ema"]), float(qty[s]), float(qty[s]),
                works[s][0], works[s][1], sum(worst), pnl, True, True,
            )  # fmt: skip
            mine = tuple(
                Working(k, o["side"], o["qty"] - o["filled"], o["price"], o["purpose"], o["sent"], o["cancel"])
                for k, o in orders.items() if o["symbol"] == s
            )  # fmt: skip
            for action in strategy.on_signal(situation, mine, now):
                result.intents += 1
                second[now // 1_000_000_000] += 1
                if isinstance(action, Cancel):
                    result.why["cancel: " + action.why] += 1
                    orders[action.intent_id]["cancel"] = now
                    source.cancel(action.intent_id, now)
                    continue
                result.why[action.purpose.name + ": " + action.why.split(" +")[0].split(" -")[0]] += 1
                if action.purpose == Purpose.ENTRY:
                    result.entries += 1
                    result.by_regime[int(m["regime"])] += 1
                key += 1
                orders[key] = {
                    "symbol": s, "side": action.side, "qty": action.qty, "filled": 0.0, "price": action.limit_price,
                    "purpose": action.purpose, "sent": now, "cancel": 0,
                }  # fmt: skip
                ioc = action.tif == TimeInForce.IOC
                source.submit(key, s, int(action.side), action.qty, action.limit_price, ioc, now)
    result.pnl_usd, result.commissions_usd = pnl, commissions
    result.most_intents_in_a_second = max(second.values(), default=0)
    return result
