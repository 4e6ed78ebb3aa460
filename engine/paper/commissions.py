"""IBKR's commissions as pure functions of what one order has traded: two tables for US stocks, one for currencies.

Fixed: 0.005 USD a share, at least 1.00, at most 1 % of the value. Tiered: by the shares of the month, at least 0.35,
at most 1 % of the value, plus what exchanges, clearing and regulators take. Third-party fees change a few times a
year: these are the figures of early 2024 (SEC section 31, FINRA's trading activity fee, NSCC clearing; exchange fees
as of the listing venues), good enough to see their effect, not to reconcile a statement. Currency pairs know one table
only, whatever is chosen for stocks: basis points of the value by the value of the month, and a minimum for each order.
"""

from __future__ import annotations

from collections.abc import Callable
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

PAIR_TIERS: tuple[tuple[float, float, float], ...] = (
    (1e9, 0.20, 2.00),
    (2e9, 0.15, 1.50),
    (5e9, 0.10, 1.25),
    (float("inf"), 0.08, 1.00),
)
"""USD traded in a month up to which so many basis points hold, and the minimum of an order in USD."""


@dataclass(slots=True)
class Traded:
    """What one order has traded so far: shares, value in USD, whether it sells, shares that added liquidity, and what
    the account had traded in the month before it: shares, of currency pairs USD."""

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


def pair(traded: Traded) -> float:
    """USD for all executions of an order of a currency pair together."""
    if traded.shares <= 0:
        return 0.0
    charged, least = 0.0, 0.0
    done, end = traded.month_before, traded.month_before + traded.value
    for limit, rate_bps, minimum in PAIR_TIERS:
        if done < limit:
            part = min(end, limit) - done
            charged += part * rate_bps / 1e4
            done += part
            least = least or minimum  # of the tier in which the order began
        if done >= end:
            break
    return round(max(charged, least), 6)


Schedule = Callable[[Traded], float]

SCHEDULES: dict[str, Schedule] = {"fixed": fixed, "tiered": tiered}


def schedule_of(table: str, sec_type: str) -> Schedule:
    """What an instrument is charged by; ``table`` is that of stocks."""
    return pair if sec_type == "CASH" else SCHEDULES[table]
