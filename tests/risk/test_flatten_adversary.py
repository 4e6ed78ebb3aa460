"""The flatten machine as one player, everything else as the other: halts, rejections, a link that comes and goes, the
end of regular hours, kill -9 of whoever drives it, an operator's excuse. Whatever the order, a close never turns a
position around, and once the adversary rests the account gets flat.
"""

from __future__ import annotations

from flatten_exchange import Exchange, entry
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain.codes import FlattenState, Side
from engine.risk import flatten as fl

MS = 1_000_000
CONFIG = fl.FlattenConfig()
SYMBOLS = 4
symbol = st.integers(0, SYMBOLS - 1)


class Adversary(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 2**20),
        qty=st.lists(st.integers(-200, 200).map(float), min_size=SYMBOLS, max_size=SYMBOLS),
        entries=st.lists(st.tuples(symbol, st.sampled_from([Side.BUY, Side.SELL]), st.integers(1, 60)), max_size=3),
    )
    def begin(self, seed: int, qty: list[float], entries: list[tuple[int, Side, int]]) -> None:
        self.exchange = Exchange(seed, list(qty))
        self.exchange.orders += [entry(s, side, float(size)) for s, side, size in entries]
        self.now = 10**9
        self.state = fl.start(1, SYMBOLS, source=4, reason="test", cause_ns=self.now, now_ns=self.now)
        self.link, self.regular, self.excused = True, True, 0
        self.closed_while_down = 0

    def _turn(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.now += MS
            self.exchange.tick(self.now)
            view = self.exchange.view(regular=self.regular)
            if not self.link:
                view = fl.View(**{f: getattr(view, f) for f in view.__slots__} | {"can_send": False})
            before = self.exchange.closes
            self.state, actions = fl.step(self.state, view, self.now, CONFIG)
            self.exchange.carry_out(actions)
            if not self.link:
                self.closed_while_down += self.exchange.closes - before

    @rule(milliseconds=st.integers(1, 2_500))
    def time_passes(self, milliseconds: int) -> None:
        self._turn(milliseconds)

    @rule(which=symbol)
    def a_symbol_is_halted_or_resumes(self, which: int) -> None:
        self.exchange.halted ^= 1 << which

    @rule(share=st.sampled_from([0.0, 0.3, 1.0]))
    def the_broker_rejects(self, share: float) -> None:
        self.exchange.reject_share = share

    @rule(share=st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    def the_market_fills(self, share: float) -> None:
        self.exchange.fill_share = share

    @rule(which=symbol)
    def orders_of_a_symbol_hang_or_go_on(self, which: int) -> None:
        self.exchange.hangs ^= 1 << which

    @rule()
    def the_link_goes_or_comes(self) -> None:
        self.link = not self.link

    @rule()
    def regular_hours_end_or_begin(self) -> None:
        self.regular = not self.regular

    @rule()
    def the_driver_is_killed_and_another_continues(self) -> None:
        self.state = fl.resume(fl.loads(fl.dumps(self.state)), self.now, SYMBOLS)
        self.exchange.rejected = 0

    @precondition(lambda self: self.state.active and not self.excused)
    @rule(which=symbol)
    def an_operator_excuses(self, which: int) -> None:
        self.excused = 1 << which
        self.state = fl.excuse(self.state, self.excused)

    @invariant()
    def no_close_turns_a_position_around(self) -> None:
        assert self.exchange.over_closed == []

    @invariant()
    def nothing_leaves_over_a_link_that_is_down(self) -> None:
        assert self.closed_while_down == 0

    def teardown(self) -> None:
        if not hasattr(self, "exchange"):
            return
        self.link, self.regular = True, True
        self.exchange.hangs = 0
        self.exchange.halted, self.exchange.reject_share, self.exchange.fill_share = 0, 0.0, 0.5
        for _ in range(120):
            self._turn(1_000)
            if not self.state.active:
                break
        assert self.state.state == FlattenState.FLAT
        assert all(q == 0.0 for i, q in enumerate(self.exchange.qty) if not self.excused >> i & 1)
        assert not self.exchange.orders
        assert self.exchange.over_closed == []


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
