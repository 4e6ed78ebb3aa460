"""Synthetic history in process, as fast as the machine computes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from engine.domain.instruments import Instrument
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT


def iter_history(
    market: SyntheticMarket, seconds: float, chunk_events: int = 1 << 18
) -> Iterator[npt.NDArray[np.void]]:
    """Events of the next ``seconds`` of a market in arrays of up to ``chunk_events``, in time order.

    For long histories: memory stays at one chunk. Raises ValueError unless ``seconds`` is positive.
    """
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds}: must be above 0")
    end = market.now_ns + int(seconds * 1e9)
    out = np.zeros(chunk_events, MARKET_EVENT)
    while market.now_ns < end:
        market.advance(min(end, market.now_ns + 10_000_000_000))
        while (count := market.poll(out)) > 0:
            yield out[:count].copy()


def generate_history(
    instruments: Sequence[Instrument],
    seed: int,
    seconds: float,
    *,
    index: Instrument | None = None,
    levels: int = 10,
    messages_per_s: float | None = None,
    start_ns: int = 0,
) -> npt.NDArray[np.void]:
    """All events (dtype MARKET_EVENT, time order) of a fresh market's first ``seconds``; about 55 bytes a message.

    Use ``iter_history`` with a market made with ``log_truth=True`` when the regimes are wanted as well.
    """
    market = SyntheticMarket(instruments, index, seed, levels, start_ns=start_ns, messages_per_s=messages_per_s)
    return np.concatenate(list(iter_history(market, seconds)))
