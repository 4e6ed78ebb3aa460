"""The realism gate: figures that a limit-order market of large-tick stocks should have, on fixed seeds.

The AUC is Gould and Bonart's: imbalance at a random moment since the last mid move, while the spread is one tick.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from market_realism import imbalance_auc, ofi_r2, tape_of

from engine.domain.codes import Regime
from engine.domain.instruments import SIM_UNIVERSE
from engine.paper.market.history import iter_history
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MarketEventKind

SECONDS = 3_600
Void = npt.NDArray[np.void]


@pytest.fixture(scope="module")
def hour() -> tuple[Void, Void]:
    market = SyntheticMarket(SIM_UNIVERSE, seed=21, log_truth=True)
    events = np.concatenate(list(iter_history(market, SECONDS)))
    return events, market.truth_log()


def test_order_flow_imbalance_explains_the_mid_now_and_hardly_later(hour: tuple[Void, Void]) -> None:
    figures = np.array([ofi_r2(tape_of(hour[0], i.index)) for i in SIM_UNIVERSE])
    assert 0.4 < figures[:, 0].mean() < 0.8
    assert figures[:, 0].min() > 0.3
    assert figures[:, 1].mean() < 0.03


def test_queue_imbalance_predicts_the_next_one_tick_move(hour: tuple[Void, Void]) -> None:
    figures = [imbalance_auc(tape_of(hour[0], i.index), one_tick=True)[1] for i in SIM_UNIVERSE]
    assert min(figures) > 0.7
    assert max(figures) < 0.85
    assert 0.7 < np.mean(figures) < 0.8


def test_prices_stay_near_their_start_and_their_own_five_minute_mean(hour: tuple[Void, Void]) -> None:
    for instrument in SIM_UNIVERSE:
        tape = tape_of(hour[0], instrument.index)
        at = np.searchsorted(tape.t_s, np.arange(1.0, SECONDS), side="right") - 1
        mid = tape.mid[at]
        assert abs(mid / instrument.start_price - 1).max() < 0.04
        mean = np.convolve(mid, np.ones(300) / 300, mode="valid")
        assert abs(mid[299:] / mean - 1).max() < 0.01
        assert ((tape.ask - tape.bid) / tape.mid * 1e4)[at].max() < 25


def test_the_regimes_differ_in_activity_spread_and_volatility(hour: tuple[Void, Void]) -> None:
    events, log = hour
    messages, seconds = np.zeros(4), np.zeros(4)
    spreads: list[list[npt.NDArray[np.float64]]] = [[], [], [], []]
    moves: list[list[npt.NDArray[np.float64]]] = [[], [], [], []]
    for instrument in SIM_UNIVERSE:
        own = events[events["symbol"] == instrument.index]
        depth = own["t_ns"][own["kind"] == MarketEventKind.DEPTH]
        tape = tape_of(own, instrument.index)
        mine = log[log["symbol"] == instrument.index]
        for row, end in zip(mine, np.append(mine["t_ns"][1:], SECONDS * 10**9), strict=True):
            if end - row["t_ns"] < 20 * 10**9:
                continue
            r = int(row["regime"])
            seconds[r] += (end - row["t_ns"]) / 1e9
            messages[r] += np.diff(np.searchsorted(depth, [row["t_ns"], end]))[0]
            at = np.searchsorted(tape.t_s, np.arange(row["t_ns"] / 1e9 + 2, end / 1e9, 1.0)) - 1
            spreads[r].append((tape.ask - tape.bid)[at])
            moves[r].append(np.diff(tape.mid[at][::10]))
    rate = messages / seconds
    spread = np.array([np.concatenate(x).mean() for x in spreads])
    move = np.array([np.concatenate(x).std() for x in moves])
    calm, active, stressed, directional = (int(r) for r in Regime)
    assert rate[active] > 1.8 * rate[calm]
    assert spread[stressed] > 1.5 * spread[[calm, active, directional]].max()
    assert move[calm] < move[active] < move[directional]
    assert move[active] < move[stressed]


@pytest.mark.parametrize(("messages_per_s", "seconds"), [(None, 900), (1_000.0, 900), (5_000.0, 240), (50_000.0, 40)])
def test_the_message_rate_is_the_one_asked_for(messages_per_s: float | None, seconds: int) -> None:
    # regimes last minutes and differ by a factor of 2.6: the average over 8 symbols still moves by some 15 %
    market = SyntheticMarket(SIM_UNIVERSE, seed=2, messages_per_s=messages_per_s)
    count = sum(
        int(np.count_nonzero(chunk["kind"] == MarketEventKind.DEPTH)) for chunk in iter_history(market, seconds)
    )
    assert count / seconds == pytest.approx(messages_per_s or 1_000.0, rel=0.3)
