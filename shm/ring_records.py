"""Records of the rings: ticks, signals, executions, intents, commands, events.

Invariants are those of ``shm.layouts``, which checks them. A tick, as an example of how a record lies in memory (one
line of 64 bytes):

    0        8           16            24                32      40      48         56            64
    +--------+-----------+-------------+-----------------+-------+-------+----------+-------------+
    |sequence| t_socket  | t_decoded   |sym|k|s|o|l|flags| price | size  |venue|spare|t_exchange  |
    +--------+-----------+-------------+-----------------+-------+-------+----------+-------------+
"""

from __future__ import annotations

import numpy as np

TICK = np.dtype(
    [
        ("sequence", "<i8"),
        ("t_socket_ns", "<i8"),  # right after recv
        ("t_decoded_ns", "<i8"),
        ("symbol", "<u2"),
        ("kind", "u1"),  # TickKind
        ("side", "u1"),  # BookSide
        ("op", "u1"),  # DepthOp, SymbolStatus
        ("level", "u1"),  # depth row, or tick type for QUOTE_*
        ("flags", "<u2"),  # bit 0: SMART depth
        ("price", "<f8"),
        ("size", "<f8"),
        ("venue", "<u4"),  # hash of the market maker or exchange name, 0 none
        ("spare", "<u4"),
        ("t_exchange_ns", "<i8"),  # wall, ns since the epoch; 0 unknown
    ]
)

SIGNAL = np.dtype(
    [
        ("sequence", "<i8"),
        ("t_socket_ns", "<i8"),  # of the tick that completed it
        ("t_signal_ns", "<i8"),
        ("symbol", "<u2"),
        ("regime", "u1"),
        ("flags", "u1"),  # SIGNAL_VALID, SIGNAL_WARMING, SIGNAL_BAR
        ("model_id", "<u4"),
        ("confidence", "<f4"),
        ("confidence_ema", "<f4"),
        ("fair_value", "<f8"),
        ("mid", "<f8"),
        ("expected_move_bps", "<f4"),
        ("step_loglik", "<f4"),
    ]
)
SIGNAL_VALID = 1
SIGNAL_WARMING = 2
SIGNAL_BAR = 4  # closes a bar: the filter has stepped; otherwise only the fair value moved

EXECUTION = np.dtype(
    [
        ("sequence", "<i8"),
        ("t_socket_ns", "<i8"),
        ("t_exec_wall_ns", "<i8"),
        ("symbol", "<u2"),
        ("side", "i1"),  # Side
        ("kind", "u1"),  # ExecKind
        ("source", "u1"),  # Source of the order, 0 unknown (manual, other client)
        ("flags", "u1"),  # ExecFlag
        ("pad", "<u2"),
        ("exec_id", "S32"),
        ("order_id", "<i8"),
        ("perm_id", "<i8"),
        ("intent_id", "<i8"),
        ("qty", "<f8"),
        ("price", "<f8"),
        ("cum_qty", "<f8"),
        ("commission_usd", "<f8"),
        ("realized_pnl_usd", "<f8"),
    ]
)

INTENT = np.dtype(
    [
        ("sequence", "<i8"),
        ("t_socket_ns", "<i8"),  # of the tick behind it; 0 for people
        ("t_intent_ns", "<i8"),
        ("intent_id", "<i8"),  # unique for ever: source, start time of the writer, counter
        ("symbol", "<u2"),
        ("kind", "u1"),  # IntentKind
        ("source", "u1"),  # Source
        ("side", "i1"),  # Side
        ("order_type", "u1"),  # OrderType
        ("tif", "u1"),  # TimeInForce
        ("flags", "u1"),  # IntentFlag
        ("qty", "<f8"),
        ("limit_price", "<f8"),  # NaN for MKT
        ("target_id", "<i8"),  # intent to cancel or replace
        ("expires_ns", "<i8"),  # refused as stale afterwards; 0 never
        ("key", "S32"),  # idempotency key of the requester
        ("signal_sequence", "<i8"),
        ("epoch", "<i4"),
        ("mode", "u1"),  # Mode that the requester saw, 0 not asked
        ("pad", "u1", (3,)),
        ("spare", "<i8"),
    ]
)

COMMAND = np.dtype(
    [
        ("sequence", "<i8"),
        ("t_ns", "<i8"),
        ("command_id", "<i8"),
        ("symbol", "<u2"),  # ALL_SYMBOLS for every symbol
        ("kind", "u1"),  # CommandKind
        ("source", "u1"),  # Source
        ("flags", "<u4"),
        ("arg", "<f8"),
        ("who", "S32"),
        ("reason", "S48"),
        ("spare", "<i8"),
    ]
)

EVENT = np.dtype(
    [
        ("sequence", "<i8"),
        ("t_ns", "<i8"),
        ("t_wall_ns", "<i8"),
        ("kind", "<u2"),  # EventKind
        ("code", "<u2"),
        ("symbol", "<u2"),
        ("severity", "u1"),
        ("source", "u1"),
        ("ref_id", "<i8"),
        ("ref2", "<i8"),
        ("value", "<f8"),
        ("limit", "<f8"),
        ("qty", "<f8"),
        ("price", "<f8"),
        ("text", "S176"),
    ]
)
