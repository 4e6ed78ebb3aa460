"""What a gateway says of its own link to the broker, and what a new session costs: the real gateway, a driven clock."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from fault_world import SECOND, World, simulate

from engine.broker import news as n
from engine.broker.governor import Priority
from engine.domain.codes import LinkState
from engine.paper.session import Session


async def calm(w: World) -> None:
    await w.until(lambda: w.quiet, 60.0, "a quiet start")


@pytest.mark.parametrize("end", ["1101", "1102", "2104"])
def test_after_2110_nothing_is_trusted_until_its_end_and_the_books_are_read_anew(end: str) -> None:
    async def story(w: World) -> None:
        await calm(w)
        w.fault("2110")
        await w.until(lambda: w.bridge.conn.state == LinkState.BROKER_LOST, 1.0, "2110 is taken for what it is")
        assert w.blocked
        probed, begun = w.bridge.conn.last_probe_ns, int(w.bridge.cells.broker["snapshot_id"])
        await w.run(3.0)
        assert w.bridge.conn.last_probe_ns > probed, "probes go on"
        entry = w.order(0, 10, -0.03)
        await w.until(lambda: entry in w.refused, 1.0, "an entry is refused")
        assert int(w.bridge.cells.broker["snapshot_id"]) == begun
        w.fault(end)
        await w.until(lambda: w.quiet and not w.differences(), 20.0, f"recovery by {end}")
        assert int(w.bridge.cells.broker["snapshot_id"]) > begun

    simulate(story, seed=7)


def test_a_gateway_that_reports_2110_at_the_login_is_not_trusted() -> None:
    async def story(w: World) -> None:
        await calm(w)
        w.fault("2110")
        w.fault("disconnect")
        await w.run(5.0)
        assert w.bridge.conn.state == LinkState.BROKER_LOST
        w.fault("1102")
        await w.until(lambda: w.quiet and not w.differences(), 20.0, "recovery")

    simulate(story, seed=7)


@pytest.mark.parametrize("code", [1101, 1102])
def test_a_link_that_is_back_without_having_been_lost_is_read_anew(code: int) -> None:
    async def story(w: World) -> None:
        await calm(w)
        await w.run(2.0)
        begun = int(w.bridge.cells.broker["snapshot_id"])
        w.bridge.session.take(n.ErrorNews(-1, code, "restored"), w.clock.now)
        assert w.blocked
        assert w.bridge.conn.state == LinkState.SYNCING
        await w.until(lambda: w.bridge.conn.state == LinkState.UP, 5.0, "read anew")
        assert int(w.bridge.cells.broker["snapshot_id"]) > begun

    simulate(story, seed=7)


def test_a_broker_that_is_lost_before_the_first_order_id_has_come_is_not_trusted() -> None:
    async def story(w: World) -> None:
        await calm(w)
        session, conn = w.bridge.session, w.bridge.conn
        up = session._handlers[n.LinkUp]

        def late(news: n.LinkUp, now_ns: int) -> None:
            session.take(n.ErrorNews(-1, 1100, "lost"), now_ns)
            up(news, now_ns)

        session._handlers[n.LinkUp] = late
        w.fault("disconnect")
        await w.run(5.0)
        assert (conn.state, w.blocked) == (LinkState.BROKER_LOST, True)
        session.take(n.ErrorNews(-1, 1102, "restored"), w.clock.now)
        await w.until(lambda: w.quiet, 20.0, "recovery")

    simulate(story, seed=7)


def test_no_second_has_more_messages_than_allowed_not_even_that_of_a_double_reconnect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(w: World) -> None:
        await calm(w)
        times: list[int] = []
        within_pace = Session.within_pace

        def count(self: Session) -> bool:
            times.append(w.clock.now)
            return within_pace(self)

        monkeypatch.setattr(Session, "within_pace", count)
        governor, link = w.bridge.governor, w.bridge.link
        for _ in range(2):
            await w.run(1.2)
            for _ in range(governor.per_s):
                governor.submit(Priority.URGENT, lambda _: link.request_market_rule(26))
            await w.run(0.05)
            w.fault("disconnect")
            await w.until(lambda: not w.bridge.conn.session, 1.0)
            await w.until(lambda: w.bridge.conn.session, 5.0)
        await w.until(lambda: w.quiet, 20.0, "recovery")
        worst = max(sum(t <= u <= t + SECOND for u in times) for t in times)
        assert len(times) > governor.per_s + 10
        assert worst <= governor.per_s

    simulate(story, seed=7, stocks=3, messages_per_s=40.0)
