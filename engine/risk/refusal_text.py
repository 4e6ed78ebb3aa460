"""Refusals of the gate in words with numbers: what was asked, what is allowed, what to do."""

from __future__ import annotations

import math

from engine.domain.codes import Mode, Refusal


def _usd(value: float) -> str:
    return f"{value:,.0f} USD" if math.isfinite(value) else "unknown"


def _mode(value: float) -> str:
    known = {m.value: m.name.lower() for m in Mode}
    return known.get(int(value), f"{value:.0f}") if math.isfinite(value) else "unknown"


def refusal_text(code: Refusal, symbol: str, value: float, limit: float) -> str:
    """One line for the blotter. ``value`` and ``limit`` as ``pretrade.check`` left them."""
    v, lim = value, limit
    texts = {
        Refusal.KILLED: "KILLED: only orders that reduce a position pass until an operator resets",
        Refusal.PAUSED: "PAUSED: only orders that reduce a position pass until an operator resumes",
        Refusal.BLOCKED: f"{symbol} BLOCKED: see the reasons in the trading state; reducing orders pass",
        Refusal.LEASE: "no valid lease from the watchdog: only the owner of the right to send may add risk",
        Refusal.MODE: f"the requester saw mode {_mode(v)}, the gate is in mode {_mode(lim)}: reload and look again",
        Refusal.UNKNOWN_SYMBOL: f"symbol number {v:.0f} is not a tradable one (0 to {lim:.0f})",
        Refusal.SESSION_CLOSED: f"{symbol}: the session is closed; entries wait for the open",
        Refusal.STALE_DATA: f"{symbol}: no fresh valid book; only reducing orders pass",
        Refusal.QUANTITY: f"quantity {v:g}: allowed is a whole number of shares, at least {lim:.0f}",
        Refusal.PRICE: f"limit price {v:g}: allowed is a finite price above 0",
        Refusal.INCREMENT: f"limit price {v:.6g} is not a multiple of the increment {lim:g}",
        Refusal.COLLAR: f"limit price {v:.4f} is beyond the collar at {lim:.4f}",
        Refusal.ORDER_SIZE: f"{v:,.0f} shares: at most {lim:,.0f} in one order",
        Refusal.ORDER_NOTIONAL: f"order of {_usd(v)}: at most {_usd(lim)}",
        Refusal.SYMBOL_EXPOSURE: f"{symbol} would reach {_usd(v)} in the worst case: at most {_usd(lim)}",
        Refusal.GROSS_EXPOSURE: f"gross exposure would reach {_usd(v)} in the worst case: at most {_usd(lim)}",
        Refusal.MESSAGE_RATE: f"more than {lim:.0f} orders in one second, or no message budget left: slow down",
        Refusal.ACTIVE_ORDERS: f"{symbol}: {v:.0f} active orders on this side, allowed are {lim:.0f}: cancel some",
        Refusal.DUPLICATE: f"{symbol}: the same order {v:.0f} ms before; repeats within {lim:.0f} ms count as one",
        Refusal.REPEATED_EXECUTION: f"{symbol}: too many fills on this side within {lim:.0f} s: the strategy must rest",
        Refusal.SELF_MATCH: f"{symbol}: would trade with our own order at {lim:.4f}: cancel that first",
        Refusal.NOT_SHORTABLE: f"{symbol}: would be short {-v:,.0f} shares: not to be borrowed, or shorting is off",
        Refusal.BUYING_POWER: f"order of {_usd(v)}: buying power is {_usd(lim)}",
        Refusal.NOT_REDUCING: f"{symbol}: {v:,.0f} shares do not reduce the position; at most {lim:,.0f} would",
        Refusal.STALE_INTENT: f"the intent is {v:.2f} s past its time (allowed {lim:.2f} s)",
        Refusal.UNKNOWN_ORDER: "no living order of that id to cancel or replace",
        Refusal.NOT_CONNECTED: "not connected to the gateway: orders can't leave",
        Refusal.RING_FULL: "the order ring is full",
        Refusal.ACCOUNT: "the gateway's account does not fit the configured mode and account",
        Refusal.RECONCILING: "positions are being compared with the broker; orders wait until they agree",
        Refusal.ORDER_EFFICIENCY: f"{v:.1f} orders, changes and cancels for each executed order today: at most "
        f"{lim:g}; entries wait for executions; change orders rather than cancel them",
        Refusal.HALTED: f"{symbol} is halted; only reducing orders pass",
    }
    return texts.get(code, code.name)
