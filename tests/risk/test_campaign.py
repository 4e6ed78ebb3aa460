"""A campaign of random kills: each KILL has a cause of its round, and its record goes on where it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import topology
from engine.drill import campaign as c
from engine.drill.campaign import Campaign, Deed, Round
from engine.drill.watch import Blotter, both_ways

GONE_S, GRACE_S = 5.0, 15.0
WATCHDOG, BRIDGE = (topology.WATCHDOG,), (topology.BRIDGE, topology.ML, topology.ALGO)


def cause(text: str, deed: Deed) -> str:
    return c.explain(text, deed, GONE_S, GRACE_S)


@pytest.mark.parametrize("text", ["stop set by cli", "kill by cli:root: chaos: in a flatten"])
def test_an_operators_kill_is_on_purpose_only_in_a_round_that_has_one(text: str) -> None:
    assert cause(text, Deed(operator=True)) == c.ON_PURPOSE
    assert cause(text, Deed()).startswith(c.UNEXPLAINED)


def test_somebody_elses_kill_is_not_ours() -> None:
    assert cause("kill by cli:trader: enough", Deed(operator=True)).startswith(c.UNEXPLAINED)
    assert cause("stop set by cockpit", Deed(operator=True)).startswith(c.UNEXPLAINED)


def test_a_dead_man_needs_a_watchdog_that_was_away_for_its_time() -> None:
    text = "stop set by bridge"
    assert "dead-man" in cause(text, Deed(how="kill -9", services=WATCHDOG, down_s=5.0))
    assert cause(text, Deed(how="kill -9", services=WATCHDOG, down_s=4.9)).startswith(c.UNEXPLAINED)
    assert cause(text, Deed(how="kill -9", services=BRIDGE, down_s=9.0)).startswith(c.UNEXPLAINED)


def test_a_bridge_that_is_missed_needs_a_bridge_that_was_away_for_the_grace() -> None:
    text = "broker-bridge not back within 15 s with positions open"
    assert "not back" in cause(text, Deed(how="kill -9", services=BRIDGE, down_s=15.0))
    assert cause(text, Deed(how="kill -9", services=BRIDGE, down_s=14.0)).startswith(c.UNEXPLAINED)
    assert cause(text, Deed(how="kill -9", services=WATCHDOG, down_s=16.0)).startswith(c.UNEXPLAINED)


@pytest.mark.parametrize("text", ["LAT: gateway mute for 2.1 s, emergency connection answers", "LAT: API round trip x"])
def test_a_slow_or_mute_link_needs_a_bridge_that_was_stopped(text: str) -> None:
    assert cause(text, Deed(how="SIGSTOP", services=BRIDGE, stopped_s=2.0)).startswith("LAT")
    assert cause(text, Deed(how="SIGSTOP", services=BRIDGE, stopped_s=0.4)).startswith(c.UNEXPLAINED)
    assert cause(text, Deed(how="kill -9", services=BRIDGE)).startswith(c.UNEXPLAINED)
    assert cause(text, Deed(how="SIGSTOP", services=WATCHDOG)).startswith(c.UNEXPLAINED)


@pytest.mark.parametrize("badge", ["DD", "POS", "COOL", "CONF", "DRIFT"])
def test_no_kill_of_a_process_explains_a_badge_of_prices(badge: str) -> None:
    deed = Deed(operator=True, how="SIGSTOP", services=BRIDGE + WATCHDOG, down_s=60.0)
    assert cause(f"{badge}: something", deed).startswith(c.UNEXPLAINED)


def test_only_a_stop_that_began_an_incident_counts() -> None:
    rows = [{"id": 1, "text": "a"}, {"id": 2, "text": "a, again"}, {"id": 5, "text": "b"}]
    assert c.latched(rows, [rows[0], rows[2]]) == ["a", "b"]


def test_the_record_goes_on_in_its_directory_and_refuses_another_seed(tmp_path: Path) -> None:
    first = c.load(tmp_path, 7, 10)
    first.add(Round(1, "kill -9 of watchdog", trips=[c.ON_PURPOSE, c.ON_PURPOSE]), "kill -9 of watchdog")
    first.add(Round(2, "SIGTERM of watchdog", wrong="lost"), "SIGTERM of watchdog")
    c.save(first, tmp_path)
    second = c.load(tmp_path, 7, 20)
    assert (second.asked, len(second.rounds), second.kills_latched) == (20, 2, 2)
    assert second.wrong == ["round 2 (SIGTERM of watchdog): lost"]
    assert second.by_kind == {"kill -9 of watchdog": 1, "SIGTERM of watchdog": 1}
    with pytest.raises(ValueError, match="seed 7, asked for is 8"):
        c.load(tmp_path, 8, 20)
    (tmp_path / c.FILE).write_text("{}")
    with pytest.raises(ValueError, match="not the record"):
        c.load(tmp_path, 7, 20)


def test_a_new_campaign_is_empty(tmp_path: Path) -> None:
    assert c.load(tmp_path, 1, 5) == Campaign(1, 5)


def test_what_was_closed_too_far_and_bought_back_is_named() -> None:
    def order(symbol: str, side: str, filled: float) -> dict[str, object]:
        return {"symbol": symbol, "side": side, "filled_qty": filled}

    sold = [order("AAPL", "SELL", 100.0), order("AAPL", "SELL", 100.0), order("MSFT", "BUY", 5.0)]
    assert both_ways(sold) == ()
    assert both_ways([*sold, order("AAPL", "BUY", 0.0)]) == ()
    assert both_ways([*sold, order("AAPL", "BUY", 100.0)]) == ("AAPL",)
    assert Blotter(2, 2, 0, {}).flat
    assert not Blotter(3, 3, 0, {}, ("AAPL",)).flat
    assert "BOTH WAYS: AAPL" in str(Blotter(3, 3, 0, {}, ("AAPL",)))
