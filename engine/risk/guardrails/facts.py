"""What the rules look at: plain values, read from the cells once per evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.domain.codes import LinkState

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """``trades`` and ``intents`` (per source) only ever rise while the bridge lives; commissions are of the day."""

    ready: bool = False
    net_liquidation_usd: float = float("nan")
    commissions_usd: float = 0.0
    trades: int = 0
    intents: tuple[int, ...] = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """The bridge's connection. ``rtts_ns``: the last round trips, newest last. Ages in ns, -1 for "not so"."""

    link: int = int(LinkState.DOWN)
    bridge_alive: bool = False
    leaving: bool = False
    reconciled: bool = False
    down_since_ns: int = 0
    ever_up: bool = False
    rtts_ns: tuple[int, ...] = ()
    probe_age_ns: int = -1
    silent_ns: int = -1
    emergency_answer_age_ns: int = -1
    reset_window: bool = False
    both_mute: bool = False
    """Asked over both connections, and neither answers: the broker is lost although sockets are open."""

    @property
    def up(self) -> bool:
        return self.bridge_alive and not self.both_mute and self.link in (LinkState.UP, LinkState.SYNCING)


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """The armed cockpit's stream. ``gone_ns``: for how long it has been gone, -1 if it is not."""

    gone_ns: int = -1
    cockpit_alive: bool = False
    kill_on_gone: bool = False


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """``move_pct``: the largest signed move within the window. ``age_ns`` -1: no value yet."""

    watched: bool = False
    value: float = float("nan")
    move_pct: float = 0.0
    age_ns: int = -1
    regular_hours: bool = False
    waited_ns: int = 0
    """How long a value has been waited for, in regular hours with the link up."""
    breach_ns: int = 0
    """Time of the tick that moved it beyond the limit, kept for the evaluation that follows; 0 none."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Rows run over the tradable symbols."""

    ema: Sequence[float] = ()
    warming: Sequence[bool] = ()
    valid: Sequence[bool] = ()
    loaded: bool = False
    service_alive: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """One evaluation's input. ``table`` (n × COLUMNS) and ``totals`` as in ``guardrails.kernels``."""

    names: tuple[str, ...]
    table: Floats
    totals: Floats
    symbol_limit_usd: float
    gross_limit_usd: float
    account: AccountFacts = AccountFacts()
    link: LinkFacts = LinkFacts()
    stream: StreamFacts = StreamFacts()
    index: IndexFacts = IndexFacts()
    models: ModelFacts = ModelFacts()
