"""Market-data subscriptions: what is wanted, what runs, what has gone quiet and must be asked for again.

STATUS and DEPTH_RESET ticks are written here, into the same ring as the data and in order with it: a book is void from
the moment its subscription is renewed until rows arrive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.broker.contracts import ContractBook
from engine.broker.governor import Governor, Priority
from engine.broker.link import BrokerLink, Line
from engine.broker.news import ErrorNews
from engine.broker.pulse import SUSPECT_NS, Pulse
from engine.domain.codes import SymbolStatus, TickKind
from engine.domain.instruments import Instrument
from shm.layouts import TICK

RETRY_NS = 60_000_000_000
COMPETING_NS = 15_000_000_000
"""After 10197: the other session may have ended."""
HALT_RETRY_NS = 10_000_000_000
UNFIT_NS = 2_000_000_000
"""A book that is invalid for this long although its feed ticks is asked for anew."""
RESYNC_GAP_NS = 10_000_000_000
"""Not more often than this."""
_LIMITS = frozenset((309, 10190, 101))
"""Too many lines: asking again soon is of no use."""
_LINE_OF = {"depth": Line.DEPTH, "quotes": Line.QUOTES, "prints": Line.PRINTS}


@dataclass(slots=True)
class SymbolFeed:
    wanted: tuple[Line, ...]
    running: set[Line]
    asked_ns: int = 0
    live: bool = False
    halted: bool = False
    session: int = -1
    retry_ns: int = 0
    pulse: Pulse = field(default_factory=Pulse)
    unfit_ns: int = 0
    """Since when its book has been invalid."""


class Feed:
    """``say`` publishes ticks of our own: an array of TICK records."""

    def __init__(
        self,
        instruments: Sequence[Instrument],
        index_symbol: int,
        link: BrokerLink,
        governor: Governor[Callable[[int], None]],
        contracts: ContractBook,
        say: Callable[[npt.NDArray[np.void]], None],
    ) -> None:
        self._link = link
        self._governor = governor
        self._contracts = contracts
        self._say = say
        self._tick = np.zeros(1, TICK)
        self.last_tick_ns: npt.NDArray[np.int64] = np.zeros(len(instruments), np.int64)
        self.symbols = [
            SymbolFeed((Line.QUOTES,) if i.index == index_symbol else (Line.DEPTH, Line.QUOTES, Line.PRINTS), set())
            for i in instruments
        ]
        self.suspect_since_ns = 0
        self.resyncs = 0
        self.generation = 0
        self.doubtful = 0
        """Mask of symbols whose data may be dead: no entries in them until they have proved to live."""
        self._looked_ns = 0

    def _emit(self, symbol: int, kind: TickKind, now_ns: int, op: int = 0) -> None:
        self._tick[0] = (0, now_ns, now_ns, symbol, int(kind), 0, op, 0, 0, math.nan, math.nan, 0, 0, 0)
        self._say(self._tick)

    def status(self, symbol: int, status: SymbolStatus, now_ns: int) -> None:
        self._emit(symbol, TickKind.STATUS, now_ns, int(status))

    # Subscriptions.

    def start(self, now_ns: int) -> None:
        """A session is new (or 1101 took everything): ask for all lines, depth of all symbols first."""
        self._governor.drop(Priority.SUBSCRIPTION)
        self.generation += 1
        for feed in self.symbols:
            feed.running.clear()
        for line in (Line.DEPTH, Line.QUOTES, Line.PRINTS):
            for symbol, feed in enumerate(self.symbols):
                if line in feed.wanted:
                    self._ask(symbol, line, now_ns)

    def _ask(self, symbol: int, line: Line, now_ns: int) -> None:
        generation = self.generation

        def send(t_ns: int) -> None:
            if generation != self.generation:
                return
            feed = self.symbols[symbol]
            if line == Line.DEPTH:
                self._emit(symbol, TickKind.DEPTH_RESET, t_ns)
            feed.running.add(line)
            feed.asked_ns = t_ns
            self._link.subscribe(symbol, line)

        self._governor.submit(Priority.SUBSCRIPTION, send)

    def renew(self, symbol: int, now_ns: int, lines: Sequence[Line] = ()) -> None:
        """Cancel and ask again."""
        feed = self.symbols[symbol]
        feed.asked_ns = now_ns
        feed.pulse.renew(now_ns)
        self.doubtful |= 1 << symbol
        self.resyncs += 1
        generation = self.generation
        for line in lines or feed.wanted:
            if line in feed.running:
                feed.running.discard(line)

                def cancel(t_ns: int, line: Line = line) -> None:
                    if generation == self.generation:
                        self._link.unsubscribe(symbol, line)

                self._governor.submit(Priority.SUBSCRIPTION, cancel)
            self._ask(symbol, line, now_ns)

    def down(self, now_ns: int) -> None:
        """The session is gone, and every subscription with it."""
        self._governor.drop(Priority.SUBSCRIPTION)
        self.generation += 1
        for symbol, feed in enumerate(self.symbols):
            if feed.running:
                feed.running.clear()
                self._emit(symbol, TickKind.DEPTH_RESET, now_ns)
                self.status(symbol, SymbolStatus.UNSUBSCRIBED, now_ns)
            feed.live = False

    def resync(self, symbol: int, fit: bool, now_ns: int) -> bool:
        """Look at the book of a symbol (``fit``: it is valid); True if its depth was asked for anew."""
        feed = self.symbols[symbol]
        if fit or Line.DEPTH not in feed.running or feed.halted or feed.retry_ns or feed.session != 1:
            feed.unfit_ns = 0
            return False
        feed.unfit_ns = feed.unfit_ns or now_ns
        if now_ns - feed.unfit_ns < UNFIT_NS or now_ns - feed.asked_ns < RESYNC_GAP_NS:
            return False
        feed.unfit_ns = 0
        self.renew(symbol, now_ns, (Line.DEPTH,))
        return True

    def doubt(self, now_ns: int, symbols: int = -1) -> None:
        """Somebody says that data are dead, or have been: whoever ticks again is taken out of the doubt."""
        for symbol, feed in enumerate(self.symbols):
            if symbols >> symbol & 1 and feed.running:
                feed.pulse.doubt(now_ns)
                self.doubtful |= 1 << symbol

    def suspect(self, now_ns: int) -> None:
        """Data may have died although nobody says so: renew what does not tick soon."""
        self.suspect_since_ns = now_ns
        self.doubt(now_ns)

    @property
    def requested(self) -> bool:
        """Has every wanted line been asked for?"""
        return all(f.running or f.retry_ns for f in self.symbols) and not self._governor.waiting

    def still_doubtful(self) -> int:
        """``doubtful`` without those that have ticked since."""
        for symbol, feed in enumerate(self.symbols) if self.doubtful else ():
            if self.doubtful >> symbol & 1:
                feed.pulse.heard(int(self.last_tick_ns[symbol]))
                self.doubtful &= ~(int(not feed.pulse.doubt_ns) << symbol)
        return self.doubtful

    # What arrives.

    def took(self, ticks: npt.NDArray[np.void]) -> None:
        """Note which symbols ticked."""
        self.last_tick_ns[ticks["symbol"]] = ticks["t_socket_ns"][-1]

    def halt(self, symbol: int, halted: bool, now_ns: int) -> None:
        feed = self.symbols[symbol]
        if halted == feed.halted:
            return
        feed.halted = halted
        self.status(symbol, SymbolStatus.HALTED if halted else SymbolStatus.LIVE, now_ns)
        if not halted and Line.DEPTH not in feed.running and Line.DEPTH in feed.wanted:
            self._ask(symbol, Line.DEPTH, now_ns)

    def error(self, news: ErrorNews, now_ns: int) -> str:
        """An error of a subscription; returns a sentence for people, empty when it is none of their business."""
        symbol, line = news.symbol, _LINE_OF.get(news.line)
        if symbol < 0 or line is None:
            return ""
        feed = self.symbols[symbol]
        if news.code == 317:
            self.resyncs += 1
            return ""
        feed.running.discard(line)
        if news.code == 316:
            feed.retry_ns = now_ns + HALT_RETRY_NS
            self._emit(symbol, TickKind.DEPTH_RESET, now_ns)
            self.halt(symbol, True, now_ns)
            return f"{line.name.lower()} is halted"
        feed.retry_ns = now_ns + (COMPETING_NS if news.code == 10197 else RETRY_NS)
        self.doubt(now_ns, 1 << symbol)
        if line == Line.DEPTH:
            self._emit(symbol, TickKind.DEPTH_RESET, now_ns)
            self.status(symbol, SymbolStatus.UNSUBSCRIBED, now_ns)
        remedy = "; book fewer symbols or more market-data lines" if news.code in _LIMITS else ""
        return f"no {line.name.lower()} data: {news.code} {news.text}{remedy}"

    # Duties.

    def watch(self, now_ns: int, wall_ns: int) -> list[int]:
        """Once a second: sessions, first ticks, silence. Returns symbols that were asked for anew."""
        renewed = []
        looked_ns, self._looked_ns = self._looked_ns, now_ns
        if self.suspect_since_ns and now_ns - self.suspect_since_ns > 3 * SUSPECT_NS:
            self.suspect_since_ns = 0
        for symbol, feed in enumerate(self.symbols):
            open_now = int(self._contracts.session_open(symbol, wall_ns))
            if open_now != feed.session:
                feed.session = open_now
                self.status(symbol, SymbolStatus.SESSION_OPEN if open_now else SymbolStatus.SESSION_CLOSED, now_ns)
            if feed.retry_ns and now_ns > feed.retry_ns:
                feed.retry_ns = 0
                for line in feed.wanted:
                    if line not in feed.running:
                        self._ask(symbol, line, now_ns)
            if not feed.running:
                continue
            last = int(self.last_tick_ns[symbol])
            if not feed.live and last > feed.asked_ns:
                feed.live = True
                self.status(symbol, SymbolStatus.LIVE, now_ns)
            if not open_now or feed.halted or feed.retry_ns:
                continue
            pulse = feed.pulse
            if not pulse.doubt_ns and 0 < now_ns - looked_ns < 2_000_000_000:
                pulse.looked(last > looked_ns)
            limit_ns = min(pulse.limit_ns, SUSPECT_NS) if self.suspect_since_ns else pulse.limit_ns
            silent_ns = now_ns - max(last, feed.asked_ns, self.suspect_since_ns)
            if silent_ns > limit_ns:
                self.doubt(now_ns, 1 << symbol)
                if pulse.may_renew(now_ns):
                    self.renew(symbol, now_ns)
                    renewed.append(symbol)
        return renewed
