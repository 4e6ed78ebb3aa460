"""Research checks on a real day of order-book data (LOBSTER format), run where L2DASH_REAL_DATA names its folder."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from engine.domain.instruments import Instrument
from engine.market.replay import collect_bars
from engine.market.state import Market
from engine.model.fit import fit, score
from shm.layouts import TICK

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not os.environ.get("L2DASH_REAL_DATA"), reason="L2DASH_REAL_DATA names no folder"),
]
OPEN_S, CLOSE_S, BAR_S = 34_200, 57_600, 10.0
WINDOWS = int((CLOSE_S - OPEN_S) / BAR_S)
PER_HALF_HOUR = int(1_800 / BAR_S)
CLIP = 4.0
"""Standard deviations: a handful of bursts of flow would otherwise decide a Gaussian likelihood by themselves."""


@pytest.fixture(scope="module")
def day() -> tuple[np.ndarray, np.ndarray]:
    """Messages (n, 6) and books (n, 4 × levels) of the AMZN day."""
    (path,) = Path(os.environ["L2DASH_REAL_DATA"]).glob("*AMZN*.zip")
    with zipfile.ZipFile(path) as archive:
        parts = []
        for kind in ("message", "orderbook"):
            (name,) = [n for n in archive.namelist() if kind in n]
            parts.append(np.loadtxt(io.BytesIO(archive.read(name)), delimiter=","))
    return parts[0], parts[1]


def depth_ticks(message: np.ndarray, book: np.ndarray) -> np.ndarray:
    """Every changed row as a depth update, each event at a time of its own (1 ns apart where the file has ties)."""
    t_ns = np.round(message[:, 0] * 1e9).astype(np.int64)
    n = np.arange(len(t_ns))
    t_ns = np.maximum.accumulate(t_ns - n) + n
    before = np.vstack([np.full(book.shape[1], np.nan), book[:-1]])
    parts, order = [], []
    for level in range(book.shape[1] // 4):
        for side in (0, 1):
            price, size = book[:, 4 * level + 2 * side], book[:, 4 * level + 2 * side + 1]
            old_price, old_size = before[:, 4 * level + 2 * side], before[:, 4 * level + 2 * side + 1]
            at = np.flatnonzero((price != old_price) | (size != old_size))
            ticks = np.zeros(len(at), TICK)
            ticks["t_socket_ns"], ticks["kind"], ticks["side"], ticks["level"] = t_ns[at], 1, side, level
            ticks["op"] = np.where(at == 0, 0, 1)
            ticks["price"], ticks["size"] = price[at] / 1e4, size[at]
            parts.append(ticks)
            order.append(at * 100 + level * 2 + side)
    return np.concatenate(parts)[np.argsort(np.concatenate(order), kind="stable")]


@pytest.fixture(scope="module")
def bars(day: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    market = Market([Instrument(0, "AMZN", 1)])
    found = collect_bars(market, [depth_ticks(*day)])
    found = np.concatenate([found, *(b.copy() for b in market.close_until(int(CLOSE_S * 1e9)))])
    assert market.faults == 0
    assert market.check() == []
    return found


def r2(x: np.ndarray, y: np.ndarray) -> float:
    x = np.column_stack([np.ones(len(y)), x])
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1.0 - residual.var() / y.var())


def half_hours(x: np.ndarray, y: np.ndarray, *, lag: int = 0, adjust: int = 0) -> float:
    """Mean R² over the half hours of the day."""
    found = []
    for begin in range(0, WINDOWS - PER_HALF_HOUR + 1, PER_HALF_HOUR):
        a, b = x[begin : begin + PER_HALF_HOUR], y[begin : begin + PER_HALF_HOUR]
        value = r2(a[: len(a) - lag], b[lag:])
        n = len(b) - lag
        found.append(1 - (1 - value) * (n - 1) / (n - adjust - 1) if adjust else value)
    return float(np.mean(found))


def test_order_flow_explains_what_it_should_and_predicts_next_to_nothing(
    day: tuple[np.ndarray, np.ndarray], bars: np.ndarray
) -> None:
    message, book = day
    window = np.minimum(((message[:, 0] - OPEN_S) // BAR_S).astype(int), WINDOWS - 1)
    # the day does not start on our clock's bar: sums per window come from the bars only where the grids agree
    ends = np.round(bars["t_end_ns"] / 1e9).astype(int)
    flow = np.zeros((WINDOWS, 5))
    flow[(ends - OPEN_S) // int(BAR_S) - 1] = bars["ofi"]
    mid = (book[:, 0] + book[:, 2]) / 200.0
    edges = np.searchsorted(message[:, 0], OPEN_S + BAR_S * np.arange(WINDOWS + 1)) - 1
    move = np.diff(mid[np.maximum(edges, 0)])
    traded = message[:, 1] == 4
    trades = np.bincount(window[traded], -(message[:, 5] * message[:, 3])[traded], WINDOWS)
    assert half_hours(flow[:, :1], move) == pytest.approx(0.525, abs=0.01)
    assert half_hours(trades[:, None], move) == pytest.approx(0.357, abs=0.01)
    assert half_hours(flow, move, adjust=5) == pytest.approx(0.784, abs=0.01)
    assert half_hours(flow[:, :1], move, lag=1) == pytest.approx(0.025, abs=0.01)


def auc(value: np.ndarray, up: np.ndarray) -> float:
    rank, ups, downs = rankdata(value), int(up.sum()), int((~up).sum())
    return float((rank[up].sum() - ups * (ups + 1) / 2) / (ups * downs))


def test_queue_imbalance_leans_towards_the_next_move_of_the_mid(day: tuple[np.ndarray, np.ndarray]) -> None:
    _, book = day
    mid = book[:, 0] + book[:, 2]
    imbalance = (book[:, 3] - book[:, 1]) / (book[:, 3] + book[:, 1])
    last = np.flatnonzero(np.diff(mid) != 0)
    first = np.r_[0, last[:-1] + 1]
    length = last - first + 1
    several = length >= 2  # with one state only there is nothing between two moves
    up = (np.diff(mid)[last] > 0)[several]
    between = (first + (np.random.default_rng(0).random(len(last)) * length).astype(int))[several]
    assert auc(imbalance[last[several]], up) == pytest.approx(0.661, abs=0.01)
    assert auc(imbalance[between], up) == pytest.approx(0.629, abs=0.01)


def test_likelihood_of_regimes_on_the_second_half_of_the_day(
    day: tuple[np.ndarray, np.ndarray], bars: np.ndarray
) -> None:
    message, book = day
    window = np.round(bars["t_end_ns"] / 1e9 - OPEN_S).astype(int) // int(BAR_S) - 1
    of_message = np.minimum(((message[:, 0] - OPEN_S) // BAR_S).astype(int), WINDOWS - 1)
    events = np.bincount(of_message, minlength=WINDOWS)[window]
    edges = OPEN_S + BAR_S * np.arange(WINDOWS + 1)
    time, top = np.r_[OPEN_S, message[:, 0], CLOSE_S], book[:, 1] + book[:, 3]
    area = np.r_[0.0, np.cumsum(np.r_[top[0], top] * np.diff(time))]
    depth = (np.diff(np.interp(edges, time, area)) / BAR_S)[window]
    # flow in shares, best-quote depth and order events instead of rows: as the published figures count them
    x = np.column_stack([bars["ofi"][:, 0], bars["x"][:, 1:4], np.log1p(events), np.log(depth)])
    half = len(x) // 2
    z = np.clip((x - x[:half].mean(axis=0)) / x[:half].std(axis=0), -CLIP, CLIP)
    # Five states have many local optima, and EM keeps climbing between them: stopped after 20 iterations it stands
    # where the published figures stand; run on until it converges it finds a better model.
    early = {k: score(fit([z[:half]], k, restarts=5, seed=1, iterations=20), [z[half:]]).loglik for k in (1, 2, 3, 5)}
    assert early[1] == pytest.approx(-8.185, abs=0.05)
    assert early[2] == pytest.approx(-7.545, abs=0.05)
    assert early[3] == pytest.approx(-7.418, abs=0.05)
    assert early[5] == pytest.approx(-7.238, abs=0.05)
    assert score(fit([z[:half]], 5, restarts=8, seed=1), [z[half:]]).loglik > early[5]
