"""Commands of the synthetic market: each does what a drill needs, deterministically, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from market_reader import Reader, check_market

from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT, MarketEventKind

S = 1_000_000_000


def running(seed: int = 1, symbols: int = 3, allow_crossed: bool = False) -> tuple[SyntheticMarket, Reader]:
    market = SyntheticMarket(SIM_UNIVERSE[:symbols], SIM_INDEX, seed=seed)
    reader = Reader(10, allow_crossed)
    market.advance(10 * S)
    reader.drain(market)
    return market, reader


def mid(market: SyntheticMarket, symbol: int = 0) -> float:
    bids, asks = market.snapshot(symbol)
    return float(bids[0, 0] + asks[0, 0]) / 2


def test_a_shock_jumps_at_once_and_the_price_stays_there() -> None:
    market, reader = running()
    before, other = mid(market), mid(market, 1)
    market.shock(0, 3.0)
    assert mid(market) == pytest.approx(before * 1.03, abs=0.01)
    for k in range(11, 130):
        market.advance(k * S)
        reader.drain(market)
    assert mid(market) == pytest.approx(before * 1.03, rel=0.006)
    assert mid(market, 1) == pytest.approx(other, rel=0.006)
    reader.assert_equals_snapshot(market, 0)
    check_market(market)


def test_a_shock_over_time_passes_through_the_prices_between() -> None:
    market, reader = running()
    before = mid(market)
    market.shock(0, -6.0, 60 * S)
    path = []
    for k in range(11, 75):
        market.advance(k * S)
        reader.drain(market)
        path.append(mid(market) / before - 1)
    assert path[28] == pytest.approx(-0.03, abs=0.006)
    assert path[-1] == pytest.approx(-0.06, abs=0.006)
    assert max(np.abs(np.diff(path))) < 0.003


def test_a_second_shock_finishes_the_first() -> None:
    market, _ = running()
    before = mid(market)
    market.shock(0, 2.0, 100 * S)
    market.shock(0, 1.0)
    assert mid(market) == pytest.approx(before * 1.02 * 1.01, abs=0.03)


def test_a_shock_trades_through_client_orders_in_its_way_at_their_limits() -> None:
    market, reader = running()
    bids, _ = market.snapshot(0)
    far = round(bids[0, 0] * 0.99, 2)
    market.submit(1, 0, 1, 500, far, False, 10 * S)
    market.submit(2, 0, 1, 500, round(bids[0, 0] * 0.90, 2), False, 10 * S)
    market.shock(0, -3.0)
    reader.drain(market)
    assert reader.fills == [(1, far, 500, 1, 1)]
    assert market.cancel(2, 10 * S)
    reader.drain(market)
    check_market(market)
    reader.assert_equals_snapshot(market, 0)


def test_shocks_that_would_leave_the_grid_are_refused() -> None:
    market, _ = running()
    with pytest.raises(ValueError, match="pct = 200"):
        market.shock(0, 200.0)
    with pytest.raises(ValueError, match="over_ns = -1"):
        market.shock(0, 1.0, -1)


def test_the_index_falls_six_percent_in_four_minutes_while_the_stocks_stay() -> None:
    market, reader = running()
    stocks, start = mid(market), reader.index[-1][1]
    market.gap_index(-6.0, 240 * S)
    market.advance(130 * S)
    reader.drain(market)
    assert reader.index[-1][1] == pytest.approx(start * 0.97, rel=0.005)
    market.advance(260 * S)
    reader.drain(market)
    assert reader.index[-1][1] == pytest.approx(start * 0.94, rel=0.005)
    assert mid(market) == pytest.approx(stocks, rel=0.008)


def test_the_index_follows_when_the_stocks_are_shocked_with_it() -> None:
    market, reader = running()
    stocks, start = mid(market), reader.index[-1][1]
    market.gap_index(-6.0, with_stocks=True)
    market.advance(11 * S)
    reader.drain(market)
    assert mid(market) == pytest.approx(stocks * 0.94, rel=0.002)
    assert reader.index[-1][1] == pytest.approx(start * 0.94, rel=0.002)


def test_a_halt_stops_the_flow_holds_orders_and_a_resume_matches_them_in_order() -> None:
    market, reader = running()
    market.submit(1, 0, 1, 10, 140.0, False, 10 * S)
    market.halt(0)
    reader.drain(market)
    assert reader.halts == [(0, 1)]
    _, asks = market.snapshot(0)
    market.submit(2, 0, 1, asks[0, 1], float("nan"), False, 11 * S)
    market.submit(3, 0, 1, 10, asks[0, 0], True, 11 * S)
    market.advance(40 * S)
    events = reader.drain(market)
    assert not (events["symbol"] == 0).any()
    assert (events["symbol"] == 1).any()
    assert market.cancel(1, 40 * S)
    market.resume(0)
    reader.drain(market)
    assert reader.halts == [(0, 1), (0, 0)]
    assert [(f[0], f[2]) for f in reader.fills] == [(2, asks[0, 1])]
    assert (3, 10, 2) in reader.done
    market.advance(45 * S)
    assert (reader.drain(market)["symbol"] == 0).any()
    check_market(market)


def test_a_frozen_feed_says_nothing_yet_fills_clients_and_returns_with_all_rows() -> None:
    market, reader = running()
    market.freeze(0)
    market.advance(40 * S)
    assert not (reader.drain(market)["symbol"] == 0).any()
    market.submit(1, 0, 1, 10, float("nan"), False, 40 * S)
    events = reader.drain(market)
    assert events["kind"].tolist() == [MarketEventKind.OWN_FILL]
    market.resume(0)
    reader.drain(market)
    assert reader.resets == [0]
    reader.assert_equals_snapshot(market, 0)
    assert len(reader.books[0][0]) == 10
    check_market(market)


def test_a_frozen_index_is_mute_until_resumed() -> None:
    market, reader = running()
    market.freeze(SIM_INDEX.index)
    count = len(reader.index)
    market.advance(20 * S)
    reader.drain(market)
    assert len(reader.index) == count
    market.resume(SIM_INDEX.index)
    market.advance(21 * S)
    reader.drain(market)
    assert len(reader.index) == count + 4


def test_a_widened_spread_stays_wide_until_it_is_released() -> None:
    market, reader = running()
    market.widen(0, 40.0)
    spreads = []
    for k in range(44, 200):
        market.advance(k * S // 4)
        reader.drain(market)
        bids, asks = market.snapshot(0)
        spreads.append((asks[0, 0] - bids[0, 0]) / mid(market) * 1e4)
    assert min(spreads) >= 39.9
    assert max(spreads) < 80
    market.widen(0, 0.0)
    market.advance(120 * S)
    reader.drain(market)
    bids, asks = market.snapshot(0)
    assert (asks[0, 0] - bids[0, 0]) / mid(market) * 1e4 < 10
    check_market(market)


def test_a_crossed_feed_shows_bids_above_asks_for_the_time_asked_and_the_book_itself_stays_right() -> None:
    market, reader = running(allow_crossed=True)
    market.cross(0, 2 * S)
    bids, asks = market.snapshot(0)
    assert bids[0, 0] == pytest.approx(asks[0, 0] + 0.01)
    check_market(market)
    market.advance(13 * S)
    reader.drain(market)
    bids, asks = market.snapshot(0)
    assert bids[0, 0] < asks[0, 0]
    reader.assert_equals_snapshot(market, 0)


def test_commands_are_part_of_what_a_seed_reproduces() -> None:
    def play() -> np.ndarray:
        market = SyntheticMarket(SIM_UNIVERSE[:2], SIM_INDEX, seed=3)
        market.advance(5 * S)
        market.shock(0, 1.0, S)
        market.widen(1, 30.0)
        market.advance(8 * S)
        market.halt(0)
        market.advance(9 * S)
        market.resume(0)
        market.advance(15 * S)
        out = np.zeros(1 << 16, MARKET_EVENT)
        return out[: market.poll(out)].copy()

    assert np.array_equal(play(), play())


def test_commands_name_what_is_wrong() -> None:
    market = SyntheticMarket(SIM_UNIVERSE[:1])
    with pytest.raises(ValueError, match="no index"):
        market.gap_index(-1.0)
    with pytest.raises(ValueError, match="bps = 9000"):
        market.widen(0, 9000.0)
    with pytest.raises(ValueError, match="symbol = 4"):
        market.halt(4)
    with pytest.raises(ValueError, match="for_ns = 0"):
        market.cross(0, 0)
