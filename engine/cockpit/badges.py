"""The eight badges as every surface shows them: word, value against limit, age, what it did and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cockpit.words import name_of, number, text_of
from engine.domain.codes import Badge, BadgeState
from engine.risk.guardrails.result import unit_of

if TYPE_CHECKING:
    from engine.cockpit.view import View

DOES = {
    Badge.SPREAD: "blocks the symbol",
    Badge.POS: "KILL and flatten",
    Badge.COOL: "KILL and flatten",
    Badge.LAT: "KILL and flatten; a lost stream pauses",
    Badge.DD: "KILL and flatten; locked until the next session",
    Badge.KILL: "risk-reducing orders only until an operator's reset",
    Badge.CONF: "blocks entries, KILL after a minute",
    Badge.DRIFT: "KILL and flatten",
}


def guardrails(view: View) -> list[dict[str, Any]]:
    """All badges in their fixed order. A silent watchdog makes every badge STALE: old green is no green.

    KILL is read from the stop cells themselves: it shows before, and without, the watchdog's word.
    """
    cell = view.value("guardrails")
    killed = view.stops().kill
    silent_ns = view.watchdog_silent_ns()
    out = []
    for badge in Badge:
        b = cell["badges"][badge]
        state = name_of(BadgeState, int(b["state"]))
        reason = text_of(b["reason"])
        unit = unit_of(badge, reason)  # of its own words, before others are put in front
        value, limit = number(float(b["value"])), number(float(b["limit"]))
        if badge == Badge.KILL and killed and state not in ("TRIPPED", "WAIT"):
            state, reason = "TRIPPED", "latched in a stop cell; the watchdog has not adopted it yet"
        elif silent_ns:
            known = view.known("guardrails")
            state = "STALE" if state != "TRIPPED" or not known else state
            last = (
                f"the watchdog has said nothing for {silent_ns / 1e9:.1f} s"
                if known
                else "the watchdog has not spoken yet"
            )
            reason = f"{last}; {reason}" if reason and known else last
            if not known:
                value = limit = None
        out.append(
            {
                "name": badge.name,
                "state": state,
                "value": value,
                "limit": limit,
                "unit": unit,
                "since": view.iso(int(b["since_ns"])),
                "reason": reason,
                "symbols": view.symbols_of(int(b["symbols"])),
                "does": DOES[badge],
            }
        )
    return out
