"""The synthetic market as a source: consistent books, exact reproduction, known truth."""

from __future__ import annotations

import numpy as np
import pytest
from market_reader import Reader, check_market

from engine.domain.codes import Regime
from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE, Instrument
from engine.paper.market import book, commands, flow, memory, orders, seeding, synthetic
from engine.paper.market.history import generate_history, iter_history
from engine.paper.market.layout import NEVER
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT, MarketEventKind, MarketSource

S = 1_000_000_000


def test_it_is_a_market_source() -> None:
    source: MarketSource = SyntheticMarket(SIM_UNIVERSE)
    assert source.levels == 10
    assert source.instruments == SIM_UNIVERSE


def test_row_operations_rebuild_every_snapshot_and_no_reader_ever_sees_a_crossed_book() -> None:
    market = SyntheticMarket(SIM_UNIVERSE, SIM_INDEX, seed=3)
    reader = Reader(10)
    for k in range(40):
        market.advance(k * S // 4)
        reader.drain(market)
        for instrument in SIM_UNIVERSE:
            reader.assert_equals_snapshot(market, instrument.index)
    check_market(market)
    assert len(reader.kinds) > 5_000


@pytest.mark.parametrize("levels", [1, 2, 5, 20])
def test_every_number_of_levels_is_served(levels: int) -> None:
    market = SyntheticMarket(SIM_UNIVERSE[:2], seed=4, levels=levels)
    reader = Reader(levels)
    for k in range(20):
        market.advance(k * S)
        reader.drain(market)
        reader.assert_equals_snapshot(market, 0)
    assert len(reader.books[0][0]) == levels
    assert reader.trades


def test_the_same_seed_gives_the_same_events_and_another_seed_others() -> None:
    first = generate_history(SIM_UNIVERSE, 11, 20, index=SIM_INDEX)
    again = generate_history(SIM_UNIVERSE, 11, 20, index=SIM_INDEX)
    other = generate_history(SIM_UNIVERSE, 12, 20, index=SIM_INDEX)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:1000], other[:1000])


def test_events_do_not_depend_on_the_steps_in_which_time_advances() -> None:
    whole = generate_history(SIM_UNIVERSE[:3], 5, 5)
    market = SyntheticMarket(SIM_UNIVERSE[:3], seed=5)
    out = np.zeros(7, MARKET_EVENT)
    parts = []
    while market.next_ns() <= 5 * S:
        market.advance(market.next_ns())
        while count := market.poll(out):
            parts.append(out[:count].copy())
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_symbol_is_the_same_with_and_without_the_others() -> None:
    together = generate_history(SIM_UNIVERSE, 9, 10, messages_per_s=8 * 125.0)
    alone = generate_history(SIM_UNIVERSE[3:4], 9, 10, messages_per_s=125.0)
    assert np.array_equal(together[together["symbol"] == 3], alone)


def test_compiled_and_interpreted_kernels_write_the_same_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> np.ndarray:
        market = SyntheticMarket(SIM_UNIVERSE[:1], SIM_INDEX, seed=8, levels=5)
        market.submit(1, 0, 1, 300, 149.99, False, 0)
        market.advance(S)
        market.submit(2, 0, -1, 1_500, float("nan"), False, S)
        market.shock(0, 0.1, S)
        market.advance(4 * S)
        market.cancel(1, 4 * S)
        out = np.zeros(1 << 14, MARKET_EVENT)
        return out[: market.poll(out)].copy()

    compiled = play()
    for module in (book, orders, flow, commands, memory, seeding, synthetic):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    with np.errstate(over="ignore"):
        interpreted = play()
    assert len(compiled) > 300
    assert np.array_equal(compiled, interpreted)


def test_truth_is_readable_and_logged_with_dwell_times_of_30_to_300_s() -> None:
    market = SyntheticMarket(SIM_UNIVERSE, seed=2, log_truth=True)
    market.advance(0)
    for _ in iter_history(market, 3_000):
        pass
    log = market.truth_log()
    assert set(log["regime"]) == {int(r) for r in Regime}
    for instrument in SIM_UNIVERSE:
        mine = log[log["symbol"] == instrument.index]
        dwell_s = np.diff(mine["t_ns"]) / 1e9
        assert dwell_s.min() >= 30
        assert dwell_s.max() <= 300
        assert (np.diff(mine["regime"]) != 0).all()
        assert market.truth(instrument.index) == mine["regime"][-1]
        assert set(mine["direction"][mine["regime"] != Regime.DIRECTIONAL]) <= {0}


def test_the_index_is_printed_four_times_a_second_from_the_stocks() -> None:
    market = SyntheticMarket(SIM_UNIVERSE, SIM_INDEX, seed=6)
    reader = Reader(10)
    market.advance(100 * S)
    reader.drain(market)
    assert len(reader.index) == 400
    moves = [np.mean([rows[0][0] for rows in market.snapshot(i.index)]) / i.start_price for i in SIM_UNIVERSE]
    assert reader.index[-1][1] == pytest.approx(40_000 * np.mean(moves), abs=3)


def test_an_unread_market_waits_instead_of_losing_events() -> None:
    market = SyntheticMarket(SIM_UNIVERSE, seed=1, messages_per_s=50_000)
    market.advance(25 * S)
    assert market.now_ns < 25 * S
    assert market.next_ns() <= market.now_ns
    out = np.zeros(1 << 20, MARKET_EVENT)
    parts = []
    while market.now_ns < 25 * S:
        parts.append(out[: market.poll(out)].copy())
        market.advance(25 * S)
    parts.append(out[: market.poll(out)].copy())
    events = np.concatenate(parts)
    assert (np.diff(events["t_ns"]) >= 0).all()
    assert np.count_nonzero(events["kind"] == MarketEventKind.DEPTH) > 800_000
    check_market(market)


def test_without_an_index_none_is_printed() -> None:
    events = generate_history(SIM_UNIVERSE[:2], 1, 5)
    assert MarketEventKind.INDEX not in events["kind"]
    market = SyntheticMarket(SIM_UNIVERSE[:1])
    market.halt(0)
    assert market.next_ns() >= NEVER


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"instruments": ()}, "instruments: 0"),
        ({"instruments": (SIM_UNIVERSE[0], SIM_UNIVERSE[0])}, "share one index"),
        ({"instruments": SIM_UNIVERSE, "levels": 21}, "levels = 21"),
        ({"instruments": SIM_UNIVERSE, "rate_scale": 0.0}, "rate_scale = 0.0"),
        ({"instruments": SIM_UNIVERSE, "messages_per_s": -1.0}, "messages_per_s = -1.0"),
        ({"instruments": (Instrument(0, "PENNY", 1, start_price=0.5),)}, "instrument PENNY"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SyntheticMarket(**arguments)  # type: ignore[arg-type]
