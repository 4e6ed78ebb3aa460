"""BLOCK: derived facts that hold entries back, for one symbol or for all, and clear themselves."""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.codes import BlockReason
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import Facts


@dataclass(frozen=True, slots=True)
class Duties:
    """What the rest of the system reports. ``invalid_models``: mask of symbols whose model fails its validity check."""

    recorder_behind: bool = False
    disk_low: bool = False
    algo_down: bool = False
    ml_down: bool = False
    evaluator_slow: bool = False
    scope_unanswered: bool = False
    killed_symbols: int = 0
    invalid_models: int = 0
    started: bool = True


@dataclass(frozen=True, slots=True)
class Blocks:
    """``reasons``: BlockReasons that hold all symbols. ``symbols``: mask of blocked ones, ``symbol_reasons`` why."""

    reasons: int = 0
    symbols: int = 0
    symbol_reasons: int = 0


def blocks(facts: Facts, duties: Duties) -> Blocks:
    """Every fact but those that a badge reports itself (SPREAD, CONFIDENCE, UNKNOWN_EXPOSURE, INDEX_STALE)."""
    symbols = why = 0
    n = len(facts.names)
    for i, value in enumerate(facts.table[:, k.FLAGS].tolist()):
        flags, bit, found = int(value), 1 << i, 0
        if not flags & k.SEEN or flags & (k.STALE | k.EMPTY) or not flags & k.VALID:
            found |= 1 << BlockReason.STALE_DATA
        if flags & k.SEEN and not flags & k.OPEN:
            found = 1 << BlockReason.SESSION_CLOSED
        if flags & k.HALTED:
            found |= 1 << BlockReason.HALTED
        if duties.killed_symbols & bit:
            found |= 1 << BlockReason.SYMBOL_KILLED
        if duties.invalid_models & bit:
            found |= 1 << BlockReason.MODEL_INVALID
        if found:
            symbols |= bit
            why |= found
    link = facts.link
    every = (
        (not link.up, BlockReason.LINK_DOWN),
        (link.up and not link.reconciled, BlockReason.RECONCILIATION_OPEN),
        (not duties.started, BlockReason.STARTING),
        (duties.recorder_behind, BlockReason.RECORDER_BEHIND),
        (duties.disk_low, BlockReason.DISK),
        (duties.ml_down, BlockReason.ML_DOWN),
        (duties.algo_down, BlockReason.ALGO_DOWN),
        (duties.evaluator_slow, BlockReason.EVALUATOR_SLOW),
        (duties.scope_unanswered, BlockReason.SCOPE_UNANSWERED),
    )
    reasons = 0
    for holds, reason in every:
        if holds:
            reasons |= 1 << reason
    if n and symbols == (1 << n) - 1:
        reasons |= why  # every symbol is blocked: that is a block of all, and the reasons are worth showing
    return Blocks(reasons, symbols, why)
