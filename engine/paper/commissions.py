"""IBKR's two commission tables for US stocks, fixed and tiered, as pure functions of what one order has traded.

Fixed: 0.005 USD a share, at least 1.00, at most 1 % of the value. Tiered: by the shares of the month, at least 0.35,
at most 1 % of the value, plus what exchanges, clearing and regulators take. Third-party fees change a few times a
year: these are the figures of early 2024 (SEC section 31, FINRA's trading activity fee, NSCC clearing; exchange fees
as of the listing venues), good enough to see their effect, not to reconcile a statement.
"""

from __future__ import annotations

from dataclasses import dataclass

FIXED_PER_SHARE = 0.005
FIXED_MINIMUM = 1.00
MAX_OF_VALUE = 0.01

TIERS: tuple[tuple[float, float], ...] = (
    (300_000.0, 0.0035),
    (3_000_000.0, 0.0020),
    (20_000_000.0, 0.0015),
    (100_000_000.0, 0.0010),
    (float("inf"), 0.0005),
)
"""Shares a month up to which a rate per share holds."""
TIERED_MINIMUM = 0.35
CLEARING_PER_SHARE = 0.00020
TAKES_PER_SHARE = 0.0030
ADDS_PER_SHARE = -0.0020
SEC_OF_SALES = 0.0000278
TAF_PER_SHARE_SOLD = 0.000166
TAF_MAXIMUM = 8.30


@dataclass(slots=True)
class Traded:
    """What one order has traded so far: shares, value in USD, whether it sells, shares that added liquidity, and the
    shares that the account had traded in the month before it."""

    shares: float
    value: float
    sells: bool = False
    added: float = 0.0
    month_before: float = 0.0


def fixed(traded: Traded) -> float:
    """USD for all executions of an order together."""
    if traded.shares <= 0:
        return 0.0
    return min(max(FIXED_PER_SHARE * traded.shares, FIXED_MINIMUM), MAX_OF_VALUE * traded.value)


def tiered(traded: Traded) -> float:
    """USD for all executions of an order together; may be negative for an order that only added liquidity."""
    if traded.shares <= 0:
        return 0.0
    charged = 0.0
    done, end = traded.month_before, traded.month_before + traded.shares
    for limit, rate in TIERS:
        if done < limit:
            part = min(end, limit) - done
            charged += part * rate
            done += part
        if done >= end:
            break
    charged = min(max(charged, TIERED_MINIMUM), MAX_OF_VALUE * traded.value)
    exchange = TAKES_PER_SHARE * (traded.shares - traded.added) + ADDS_PER_SHARE * traded.added
    clearing = CLEARING_PER_SHARE * traded.shares
    regulators = 0.0
    if traded.sells:
        regulators = SEC_OF_SALES * traded.value + min(TAF_PER_SHARE_SOLD * traded.shares, TAF_MAXIMUM)
    return round(charged + exchange + clearing + regulators, 6)


SCHEDULES = {"fixed": fixed, "tiered": tiered}
