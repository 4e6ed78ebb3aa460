"""Broker lost: how long the link may be down, and what follows when it is back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from engine.config import Guardrails
from engine.risk.guardrails.facts import LinkFacts


class LinkAction(IntEnum):
    NONE = 0
    KILL_P1 = 1
    KILL_P2 = 2  # inside a scheduled reset window
    ESCALATE_P1 = 3  # the window is over and the link still down
    FLATTEN = 4  # back, in time
    PAGE = 5  # back too late, the session is closed, or the books do not get well: the operator decides


@dataclass(frozen=True, slots=True)
class LinkRule:
    """``down_since_ns``: of the present outage, 0 while up. ``outage_ns``: of the one before."""

    down_since_ns: int = 0
    killed: bool = False
    in_window: bool = False
    outage_ns: int = 0
    back_since_ns: int = 0


def link_rule(
    link: LinkFacts, g: Guardrails, state: LinkRule, now_ns: int, *, awaits: bool, held: bool, session_open: bool,
    books_fresh_ns: int,
) -> tuple[LinkRule, LinkAction]:  # fmt: skip
    """``awaits``: KILL is latched because of an outage and nothing has been decided yet. ``held``: positions are open.

    ``books_fresh_ns``: for how long all books of held symbols have been fresh, -1 if they are not.
    """
    if not link.up:
        if not link.ever_up and not held:
            return state, LinkAction.NONE  # never connected: there is nothing to lose yet
        since = state.down_since_ns or (min(link.down_since_ns, now_ns) if link.down_since_ns else now_ns)
        state = replace(state, down_since_ns=since, back_since_ns=0)
        if not state.killed and now_ns - since >= g.link_down_kill_s * 1e9:
            action = LinkAction.KILL_P2 if link.reset_window else LinkAction.KILL_P1
            return replace(state, killed=True, in_window=link.reset_window), action
        if state.killed and state.in_window and not link.reset_window:
            return replace(state, in_window=False), LinkAction.ESCALATE_P1
        return state, LinkAction.NONE
    if state.down_since_ns:
        state = LinkRule(outage_ns=now_ns - state.down_since_ns, back_since_ns=now_ns)
    if not awaits:
        return state, LinkAction.NONE
    if not state.back_since_ns:  # a successor does not know for how long
        state = replace(state, back_since_ns=now_ns)
    # Neither books nor reconciliation may be waited for for ever with positions open: then a person has to know.
    late = held and now_ns - state.back_since_ns >= g.link_down_kill_s * 1e9
    undecided = LinkAction.PAGE if late else LinkAction.NONE
    if not link.reconciled:
        return state, undecided
    if not held:
        return state, LinkAction.FLATTEN  # nothing to close, but flat has to be confirmed
    if state.outage_ns >= g.reconnect_flatten_outage_s * 1e9 or not session_open:
        return state, LinkAction.PAGE
    if books_fresh_ns >= 1_000_000_000:
        return state, LinkAction.FLATTEN
    return state, undecided
