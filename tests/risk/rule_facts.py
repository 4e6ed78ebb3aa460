"""Facts in which nothing is wrong, and small changes to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from engine.domain.codes import LinkState
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import AccountFacts, Facts, IndexFacts, LinkFacts, ModelFacts

MS = 1_000_000
S = 1_000 * MS
FINE = k.SEEN | k.OPEN | k.VALID | k.WARMED


def quiet(n: int = 8) -> Facts:
    table = np.zeros((n, k.COLUMNS))
    table[:, k.MID] = table[:, k.MARK] = 100.0
    table[:, k.FLAGS], table[:, k.SPREAD_BPS], table[:, k.SPREAD_LIMIT_BPS] = FINE, 2.0, 25.0
    table[:, k.STALE_LIMIT_NS] = 5 * S
    return Facts(
        names=tuple(f"S{i}" for i in range(n)),
        table=table,
        totals=np.zeros(k.TOTALS),
        symbol_limit_usd=100_000.0,
        gross_limit_usd=500_000.0,
        account=AccountFacts(ready=True, net_liquidation_usd=1_000_000.0),
        link=LinkFacts(
            link=int(LinkState.UP), bridge_alive=True, reconciled=True, ever_up=True, rtts_ns=(MS,) * 5, silent_ns=MS
        ),
        index=IndexFacts(watched=True, value=40_000.0, age_ns=S, regular_hours=True),
        models=ModelFacts([0.95] * n, [False] * n, [True] * n, loaded=True, service_alive=True),
    )


def with_link(facts: Facts, **changes: Any) -> Facts:
    return replace(facts, link=replace(facts.link, **changes))
