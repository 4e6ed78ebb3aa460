"""Codes in words: what people read on badges, in lists and in errors."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import IntEnum

from engine.domain.codes import BlockReason, LinkState
from engine.domain.instruments import DISPLAY_NAMES

BLOCK_WORDS: dict[BlockReason, str] = {
    BlockReason.STALE_DATA: "market data is stale",
    BlockReason.LINK_DOWN: "the broker link is down",
    BlockReason.LEASE_EXPIRED: "the watchdog's lease has expired",
    BlockReason.RECORDER_BEHIND: "the recorder is behind",
    BlockReason.MODEL_INVALID: "no valid model",
    BlockReason.SESSION_CLOSED: "the session is closed",
    BlockReason.RECONCILIATION_OPEN: "reconciliation with the broker is open",
    BlockReason.STARTING: "starting",
    BlockReason.SPREAD: "the spread is too wide",
    BlockReason.HALTED: "halted",
    BlockReason.POSITION_MISMATCH: "a position differs from the broker's: accept the broker's figure",
    BlockReason.CONFIDENCE: "model confidence is low",
    BlockReason.UNKNOWN_EXPOSURE: "orders of unknown fate count as exposure",
    BlockReason.ML_DOWN: "ml-service is down",
    BlockReason.ALGO_DOWN: "algo is down",
    BlockReason.ACCOUNT_MISMATCH: "the account does not fit the mode",
    BlockReason.SCOPE_UNANSWERED: "gateway.account_scope has not been answered",
    BlockReason.DISK: "the disk is full",
    BlockReason.INDEX_STALE: "the index is stale",
    BlockReason.SYMBOL_KILLED: "the symbol is locked out after a drift",
    BlockReason.EVALUATOR_SLOW: "a guardrail evaluator is slow",
}

LINK_WORDS = {
    LinkState.DOWN: "down",
    LinkState.CONNECTING: "connecting",
    LinkState.SYNCING: "reconciling",
    LinkState.UP: "up",
    LinkState.BROKER_LOST: "gateway lost IBKR",
}


def display(symbol: str) -> str:
    """The name that people know an instrument by."""
    return DISPLAY_NAMES.get(symbol, symbol)


def text_of(raw: bytes) -> str:
    """Text of a fixed-size bytes field."""
    return bytes(raw).rstrip(b"\0").decode(errors="replace")


def name_of(kind: type[IntEnum], code: int) -> str:
    """Name of a code, or its number if this version does not know it."""
    try:
        return kind(code).name
    except ValueError:
        return str(code)


def number(value: float) -> float | None:
    """A finite number, or None: NaN means "not known" and is null in JSON."""
    return value if math.isfinite(value) else None


def iso(wall_ns: int) -> str | None:
    """UTC time with milliseconds; None for 0."""
    if wall_ns <= 0:
        return None
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def block_words(mask: int) -> list[str]:
    """Reasons of a block mask in words."""
    return [BLOCK_WORDS[r] for r in BlockReason if mask >> r & 1]
