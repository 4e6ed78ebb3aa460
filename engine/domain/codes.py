"""Numeric codes that travel in shared-memory records, and their names.

Every code is an ``IntEnum`` so that compiled kernels see plain integers and people see words. Codes are part of the
on-disk journal: append, never renumber.
"""

from __future__ import annotations

from enum import IntEnum


class Side(IntEnum):
    """Direction of an order or execution. The value is the sign of the position change."""

    SELL = -1
    NONE = 0
    BUY = 1


class BookSide(IntEnum):
    """Side of an order book, numbered as in the broker's depth messages."""

    ASK = 0
    BID = 1


class DepthOp(IntEnum):
    """Operation of a depth row, numbered as in the broker's depth messages. Inserts shift the rows below."""

    INSERT = 0
    UPDATE = 1
    DELETE = 2


class TickKind(IntEnum):
    """What a record of the ``ticks`` ring says."""

    DEPTH = 1  # side, op, level, price, size
    DEPTH_RESET = 2  # the rows of this symbol are void; a full re-insert follows
    QUOTE_PRICE = 3  # level = tick type (1 bid, 2 ask, 4 last, 6 high, 7 low, 9 close), price, size
    QUOTE_SIZE = 4  # level = tick type (0 bid, 3 ask, 5 last, 8 volume), size
    TRADE = 5  # tick-by-tick print: price, size, t_exchange_ns
    INDEX = 6  # index value in price
    STATUS = 7  # op = SymbolStatus


class SymbolStatus(IntEnum):
    """Per-symbol feed status carried by STATUS ticks."""

    LIVE = 1
    HALTED = 2
    STALE = 3
    UNSUBSCRIBED = 4
    SESSION_OPEN = 5
    SESSION_CLOSED = 6


class OrderType(IntEnum):
    MKT = 1
    LMT = 2


class TimeInForce(IntEnum):
    DAY = 1
    IOC = 2
    GTC = 3


class Source(IntEnum):
    """Who asked. One order ring and one command ring per source."""

    ALGO = 1
    OPERATOR = 2
    CLI = 3
    WATCHDOG = 4
    BRIDGE = 5


class IntentKind(IntEnum):
    NEW = 1
    CANCEL = 2
    REPLACE = 3


class IntentFlag(IntEnum):
    """Bit mask in an intent."""

    REDUCE_ONLY = 1
    FLATTEN = 2
    OUTSIDE_RTH = 4


class CommandKind(IntEnum):
    FLATTEN = 1
    PAUSE = 2
    RESUME = 3
    RESET = 4
    RECONNECT = 5
    CANCEL_ALL = 6
    KILL = 7
    ACCEPT_POSITIONS = 8
    SWAP_MODEL = 9
    CANCEL_ENTRIES = 10
    LEAVE = 11
    DISARM = 12
    SNAPSHOT = 13
    ACKNOWLEDGE = 14


ONE_SYMBOL = 2
"""Bit 1 of a CANCEL_ALL's flags: only the orders of its symbol. A flag, as a symbol of 0 may be a forgotten one."""


class OrderState(IntEnum):
    """Life of an order. PENDING: in a ring, no verdict yet. UNKNOWN: sent, fate not known; counts as exposure."""

    PENDING = 1
    REFUSED = 2
    SENT = 3
    UNKNOWN = 4
    WORKING = 5
    PARTIAL = 6
    PENDING_CANCEL = 7
    FILLED = 8
    CANCELLED = 9
    REJECTED = 10


TERMINAL_STATES = (OrderState.REFUSED, OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED)


class ExecKind(IntEnum):
    FILL = 1
    CORRECTION = 2
    COMMISSION = 3


class ExecFlag(IntEnum):
    """Bit mask in an execution record."""

    REPLAYED = 1  # read back after a reconnect, not seen live
    FLATTEN = 2  # belongs to a flatten: does not count for COOL


class Mode(IntEnum):
    SIM = 1
    PAPER = 2
    LIVE = 3
    REPLAY = 4


class TradingState(IntEnum):
    ACTIVE = 1
    BLOCKED = 2
    PAUSED = 3
    KILLED = 4


class Badge(IntEnum):
    """The eight guardrails, in the order in which every surface shows them."""

    SPREAD = 0
    POS = 1
    COOL = 2
    LAT = 3
    DD = 4
    KILL = 5
    CONF = 6
    DRIFT = 7


class BadgeState(IntEnum):
    OK = 0
    WARMING = 1
    WARN = 2
    STALE = 3
    TRIPPED = 4
    WAIT = 5


class BlockReason(IntEnum):
    """Bits of a block mask: derived facts that stop entries and clear themselves."""

    STALE_DATA = 0
    LINK_DOWN = 1
    LEASE_EXPIRED = 2
    RECORDER_BEHIND = 3
    MODEL_INVALID = 4
    SESSION_CLOSED = 5
    RECONCILIATION_OPEN = 6
    STARTING = 7
    SPREAD = 8
    HALTED = 9
    POSITION_MISMATCH = 10
    CONFIDENCE = 11
    UNKNOWN_EXPOSURE = 12
    ML_DOWN = 13
    ALGO_DOWN = 14
    ACCOUNT_MISMATCH = 15
    SCOPE_UNANSWERED = 16
    DISK = 17
    INDEX_STALE = 18
    SYMBOL_KILLED = 19
    EVALUATOR_SLOW = 20


class ServiceState(IntEnum):
    DOWN = 0
    STARTING = 1
    WARMING = 2
    READY = 3
    CLOSING = 4
    STOPPED = 5


class LinkState(IntEnum):
    """The bridge's connection to the gateway."""

    DOWN = 0
    CONNECTING = 1
    SYNCING = 2  # connected, reconciliation open
    UP = 3
    BROKER_LOST = 4  # socket up, gateway has lost IBKR (1100)


class FlattenState(IntEnum):
    IDLE = 0
    STOPPING = 1
    ROUND_ONE = 2
    CONFIRM_CANCELS = 3
    CLOSING = 4
    VERIFYING = 5
    FLAT = 6
    STUCK = 7


class Owner(IntEnum):
    """Who has the right to send."""

    NOBODY = 0
    BRIDGE = 1
    WATCHDOG = 2
    LEAVING = 3


class Severity(IntEnum):
    INFO = 0
    ROUTINE = 1
    P2 = 2
    P1 = 3


class EventKind(IntEnum):
    """Kinds of records in the ``events.<service>`` rings."""

    ORDER_STATE = 1  # code = OrderState, ref_id = intent id, ref2 = order id
    REFUSED = 2  # code = Refusal, ref_id = intent id
    GUARDRAIL = 3  # code = Badge, ref_id = BadgeState, value, limit, text = reason
    STOP = 4  # code = StopEvent, text = reason
    AUDIT = 5  # operator action: code = CommandKind, ref_id = command or intent id
    ALERT = 6  # severity and text
    LIFECYCLE = 7  # code = ServiceState
    CONNECTIVITY = 8  # code = broker message code, text
    FLATTEN = 9  # code = FlattenState, ref_id = flatten id
    RECONCILE = 10  # position compared with the broker: value = ours, limit = theirs
    MODEL = 11  # code = 1 loaded 2 promoted 3 refused, ref_id = model id
    COMMAND_RESULT = 12  # ref_id = command id, code = 0 done 1 refused, text
    INTENT = 13  # an intent seen by the gate: everything that is needed to rebuild the order


class Refusal(IntEnum):
    """Why the pre-trade gate refused an intent."""

    NONE = 0
    KILLED = 1
    PAUSED = 2
    BLOCKED = 3
    LEASE = 4
    MODE = 5
    UNKNOWN_SYMBOL = 6
    SESSION_CLOSED = 7
    STALE_DATA = 8
    QUANTITY = 9
    PRICE = 10
    INCREMENT = 11
    COLLAR = 12
    ORDER_SIZE = 13
    ORDER_NOTIONAL = 14
    SYMBOL_EXPOSURE = 15
    GROSS_EXPOSURE = 16
    MESSAGE_RATE = 17
    ACTIVE_ORDERS = 18
    DUPLICATE = 19
    REPEATED_EXECUTION = 20
    SELF_MATCH = 21
    NOT_SHORTABLE = 22
    BUYING_POWER = 23
    NOT_REDUCING = 24
    STALE_INTENT = 25
    UNKNOWN_ORDER = 26
    NOT_CONNECTED = 27
    RING_FULL = 28
    ACCOUNT = 29
    RECONCILING = 30
    HALTED = 31
    ORDER_EFFICIENCY = 32


class Regime(IntEnum):
    """Hidden regimes of the paper market (the truth), in order of rising volatility where they differ."""

    CALM = 0
    ACTIVE = 1
    STRESSED = 2
    DIRECTIONAL = 3
