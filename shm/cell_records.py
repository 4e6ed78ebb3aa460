"""Records of the cells: stops, lease, account, positions, broker, books, models, guardrails, flatten, heartbeats.

Invariants are those of ``shm.layouts``, which checks them. The first word is the cell's version, written by the cell,
never by the producer (``shm.kernels``). The lease, as an example of how a cell lies in memory (one line of 64 bytes):

    0         8        16         24         32       40       48      64
    +---------+--------+----------+----------+--------+--------+-------+
    | version | epoch  | granted  | expires  | owner  | fence  | spare |
    +---------+--------+----------+----------+--------+--------+-------+
"""

from __future__ import annotations

import numpy as np

BOOK_LEVELS = 10
MAX_STATES = 8
"""Most hidden states a model may have."""
RTT_SAMPLES = 5
BADGES = 8

STOP = np.dtype(
    [
        ("version", "<i8"),
        ("since_ns", "<i8"),
        ("symbol_block", "<u8"),  # mask of blocked symbols
        ("block_reasons", "<u8"),  # bits of BlockReason, for all symbols
        ("kill_reason", "<u8"),  # mask of badges that latched it
        ("stop_id", "<i8"),
        ("kill", "u1"),
        ("pause", "u1"),
        ("block", "u1"),  # block for all symbols
        ("pad", "u1", (5,)),
        ("released_kill_id", "<i8"),  # watchdog only: kills of other sources up to this stop_id are released
        ("released_pause_id", "<i8"),  # watchdog only: likewise for pauses
        ("spare", "<i8", (7,)),
    ]
)

LEASE = np.dtype(
    [
        ("version", "<i8"),
        ("epoch", "<i8"),
        ("granted_ns", "<i8"),
        ("expires_ns", "<i8"),
        ("owner", "<i8"),  # Owner
        ("fence", "<i8"),  # epochs below this are fenced
        ("spare", "<i8", (2,)),
    ]
)

ACCOUNT = np.dtype(
    [
        ("version", "<i8"),
        ("account", "S16"),
        ("updated_ns", "<i8"),
        ("net_liquidation_usd", "<f8"),
        ("cash_usd", "<f8"),
        ("buying_power_usd", "<f8"),
        ("realized_pnl_usd", "<f8"),  # of the day, ours
        ("commissions_usd", "<f8"),  # of the day, ours
        ("executions", "<i8"),  # fills applied since the day began
        ("trades", "<i8"),  # new execution ids that count for COOL, ever rising
        ("intents", "<i8", (5,)),  # new-order intents seen by the gate per source - 1, ever rising
        ("mode", "u1"),  # Mode derived from the account id
        ("matches", "u1"),  # the account fits the configured mode
        ("ready", "u1"),  # values have arrived
        ("pad", "u1", (5,)),
        ("spare", "<i8", (7,)),
    ]
)

POSITION = np.dtype(
    [
        ("version", "<i8"),
        ("qty", "<f8"),  # confirmed by the broker, fills applied
        ("avg_cost", "<f8"),
        ("realized_pnl_usd", "<f8"),
        ("working_buy_qty", "<f8"),
        ("working_sell_qty", "<f8"),
        ("unknown_buy_qty", "<f8"),
        ("unknown_sell_qty", "<f8"),
        ("commissions_usd", "<f8"),
        ("broker_qty", "<f8"),  # the broker's own last word
        ("broker_ns", "<i8"),
        ("updated_ns", "<i8"),
        ("executions", "<i8"),
        ("working_orders", "<i8"),
        ("mismatch_since_ns", "<i8"),  # 0 when ours and the broker's agree
        ("cash_flow_usd", "<f8"),  # sum of -qty*price of own fills today, for P&L at any mark
        ("day_open_qty", "<f8"),  # position when the day began
        ("spare", "<i8", (7,)),
    ]
)

BROKER = np.dtype(
    [
        ("version", "<i8"),
        ("updated_ns", "<i8"),
        ("down_since_ns", "<i8"),  # 0 while the link is up
        ("last_message_ns", "<i8"),
        ("probe_sent_ns", "<i8"),  # 0 when no probe is outstanding
        ("rtt_ns", "<i8", (RTT_SAMPLES,)),  # ring of the last round trips
        ("rtt_count", "<i8"),  # samples ever
        ("order_id_mark", "<i8"),
        ("working_orders", "<i8"),
        ("unknown_orders", "<i8"),
        ("order_events", "<i8"),  # ever rising: any order or execution news from the broker
        ("snapshot_id", "<i8"),  # of the last complete {open orders, positions} read
        ("snapshot_begin_ns", "<i8"),
        ("snapshot_end_ns", "<i8"),
        ("snapshot_events", "<i8"),  # order_events at the end of that snapshot
        ("snapshot_open_orders", "<i8"),  # in scope
        ("snapshot_positions", "<u8"),  # mask of symbols with a position in scope
        ("epoch", "<i8"),  # owner epoch the bridge works under
        ("last_close_sent_ns", "<i8"),  # last byte of the last closing order handed to the kernel
        ("messages_sent", "<i8"),
        ("reconnects", "<i8"),
        ("clock_offset_ns", "<i8"),  # broker's wall clock minus ours
        ("link", "u1"),  # LinkState
        ("farms_down", "u1"),
        ("reconciled", "u1"),
        ("leaving", "u1"),
        ("server_version", "<u4"),
        ("foreign_positions", "<i8"),  # positions in the account outside the configured symbols
        ("foreign_orders", "<i8"),
        ("order_requests", "<i8"),  # submissions, revisions and cancels of the day
        ("orders_executed", "<i8"),  # orders of the day that have an execution
        ("efficiency_date", "<i8"),  # YYYYMMDD, the day that both count
    ]
)

BOOK = np.dtype(
    [
        ("version", "<i8"),
        ("t_socket_ns", "<i8"),
        ("updates", "<i8"),
        ("resets", "<i8"),
        ("crossed_since_ns", "<i8"),  # 0 while not crossed or locked
        ("mid", "<f8"),
        ("micro_price", "<f8"),
        ("fair_value", "<f8"),  # 5-minute reference of DRIFT; NaN while warming
        ("spread_bps", "<f8"),
        ("spread_median_bps", "<f8"),  # 5 minutes; NaN while warming
        ("gap_median_ns", "<f8"),  # between messages; NaN while warming
        ("last_price", "<f8"),
        ("last_size", "<f8"),
        ("quotes", "<i8"),  # changes of best bid or ask, ever rising
        ("traded_qty", "<f8"),
        ("valid", "u1"),  # sorted, contiguous, not empty, not stale
        ("halted", "u1"),
        ("session_open", "u1"),
        ("bid_rows", "u1"),
        ("ask_rows", "u1"),
        ("pad", "u1", (3,)),
        ("top_ns", "<i8"),  # last change of best bid or ask
        ("bid_price", "<f8", (BOOK_LEVELS,)),
        ("bid_size", "<f8", (BOOK_LEVELS,)),
        ("ask_price", "<f8", (BOOK_LEVELS,)),
        ("ask_size", "<f8", (BOOK_LEVELS,)),
        ("spare", "<i8", (7,)),
    ]
)

MODEL = np.dtype(
    [
        ("version", "<i8"),
        ("t_ns", "<i8"),
        ("model_id", "<i8"),
        ("bars", "<i8"),
        ("confidence", "<f8"),
        ("confidence_ema", "<f8"),
        ("invalid_share", "<f8"),  # of steps below the training 1 % quantile, over 5 minutes
        ("step_loglik", "<f8"),
        ("psi", "<f8"),
        ("expected_move_bps", "<f8"),
        ("regime", "u1"),
        ("states", "u1"),
        ("warming", "u1"),
        ("valid", "u1"),
        ("pad", "u1", (4,)),
        ("probability", "<f8", (MAX_STATES,)),
        ("spare", "<i8", (5,)),
    ]
)

GUARDRAIL = np.dtype(
    [
        ("state", "u1"),  # BadgeState
        ("tripped", "u1"),
        ("pad", "u1", (6,)),
        ("value", "<f8"),
        ("limit", "<f8"),
        ("since_ns", "<i8"),
        ("symbols", "<u8"),
        ("evaluated_ns", "<i8"),
        ("reason", "S80"),
    ]
)

GUARDRAILS = np.dtype(
    [
        ("version", "<i8"),
        ("evaluated_ns", "<i8"),
        ("cycles", "<i8"),
        ("equity_usd", "<f8"),
        ("day_start_usd", "<f8"),
        ("peak_usd", "<f8"),
        ("day_pnl_usd", "<f8"),
        ("gross_usd", "<f8"),
        ("index_move_pct", "<f8"),
        ("flat_since_ns", "<i8"),  # confirmed flat; 0 otherwise
        ("cooling_until_ns", "<i8"),
        ("block_reasons", "<u8"),
        ("killed_ns", "<i8"),
        ("kill_reasons", "<u8"),  # mask of badges
        ("trading_state", "u1"),  # TradingState
        ("paused", "u1"),
        ("all_ok", "u1"),
        ("day_locked", "u1"),  # DD: no release before the next session without a named override
        ("session_date", "<u4"),  # YYYYMMDD
        ("incident_id", "<i8"),
        ("net_usd", "<f8"),
        ("badges", GUARDRAIL, (BADGES,)),
        ("spare", "<i8", (7,)),
    ]
)

FLATTEN = np.dtype(
    [
        ("version", "<i8"),
        ("flatten_id", "<i8"),
        ("state", "<i8"),  # FlattenState
        ("started_ns", "<i8"),
        ("cause_ns", "<i8"),  # the tick that made the rule true
        ("sent_ns", "<i8"),  # last byte of the last closing order of round one
        ("flat_ns", "<i8"),  # confirmed
        ("rounds", "<i8"),
        ("remaining", "<u8"),  # mask of symbols not yet flat
        ("open_orders", "<i8"),
        ("source", "<i8"),
        ("spare", "<i8", (5,)),
    ]
)

ARM = np.dtype(
    [
        ("version", "<i8"),
        ("updated_ns", "<i8"),
        ("armed", "<i8"),  # number of arm leases
        ("armed_since_ns", "<i8"),
        ("stream_gone_since_ns", "<i8"),  # an armed stream broke and has not come back; 0 otherwise
        ("kill_on_gone", "<i8"),
        ("clients", "<i8"),
        ("frames", "<i8"),
        ("dropped", "<i8"),
        ("spare", "<i8", (7,)),
    ]
)

HEARTBEAT = np.dtype(
    [
        ("version", "<i8"),
        ("pid", "<i8"),
        ("start_ticks", "<i8"),  # of the process, from /proc: a reused pid is told apart
        ("incarnation", "<i8"),  # starts of this service in this instance
        ("state", "<i8"),  # ServiceState
        ("t_beat_ns", "<i8"),
        ("work_count", "<i8"),
        ("loops", "<i8"),
        ("t_started_ns", "<i8"),
        ("t_ready_ns", "<i8"),
        ("core", "<i8"),  # -1 when not pinned
        ("lag", "<i8"),  # records waiting for this service
        ("lost", "<i8"),  # records lost by its lossy readers
        ("errors", "<i8"),
        ("busy_ns", "<i8"),  # time spent with work to do
        ("flags", "<i8"),  # bit 0: degraded
    ]
)
