"""What ``l2dash doctor`` says about the broker's side: the gateway, depth lines, and which market data come."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from engine.cli.findings import FAIL, OK, WARN, Finding

if TYPE_CHECKING:
    from engine.config import Config

DEFAULT_LINES = 3
"""Depth subscriptions that IBKR grants an account without booster packs."""


def gateway(config: Config) -> Finding:
    host, port = config.gateway.host, config.gateway.port
    try:
        with socket.create_connection((host, port), 2.0):
            return Finding("gateway", OK, f"{host}:{port} accepts connections")
    except OSError as error:
        words = f"{host}:{port}: {error.strerror or error}"
    if config.instance.mode == "sim":
        return Finding("gateway", OK, f"{words}; the embedded one starts with `l2dash up`")
    return Finding("gateway", FAIL, words, "start IB Gateway, enable its API, check gateway.host and gateway.port")


def depth_lines(config: Config) -> Finding:
    """Symbols that want depth against the lines there are; of a running instance also those that have none."""
    from engine.runtime.universe import instruments

    stocks = [i.symbol for i in instruments(config) if i.tradable]
    sim = config.instance.mode == "sim"
    lines = config.paper.max_depth_lines if sim else DEFAULT_LINES
    flat = [b["symbol"] for b in _books(config) if b["tradable"] and b["age_s"] is not None and b["rows"] <= 1]
    words = f"{len(stocks)} symbols, {lines} lines"
    if flat:
        fix = "no depth: check the subscription, or trade fewer symbols"
        return Finding("depth lines", WARN, f"{words}; top of book only: {', '.join(flat)}", fix)
    if len(stocks) > lines:
        more = "raise paper.max_depth_lines" if sim else "book more (quote booster packs), or trade fewer symbols"
        return Finding("depth lines", WARN, words, more)
    return Finding("depth lines", OK, words)


def entitlements(config: Config) -> Finding:
    """Which symbols, the index included, get market data at all: only a running instance knows."""
    books = _books(config)
    if not books:
        return Finding("entitlements", OK, "known once the instance runs")
    silent = [b["symbol"] for b in books if b["age_s"] is None]
    if not silent:
        return Finding("entitlements", OK, f"data for {', '.join(b['symbol'] for b in books)}")
    fix = "subscribe to their market data at IBKR (the index needs its own; DIA is a stand-in: universe.index)"
    return Finding("entitlements", WARN, f"no data yet for {', '.join(silent)}", fix)


def _books(config: Config) -> list[dict[str, Any]]:
    """Quotes of the running instance with their number of rows; empty if none runs."""
    from engine.runtime.instance import living

    if not living(config):
        return []
    from engine.cockpit.view import View
    from engine.runtime.context import Context

    with Context.for_cli(config) as context:
        view = View(context)
        view.refresh(context.clock.now_ns())
        rows = [int(view.value("book", i.index)["bid_rows"]) for i in view.instruments]
        return [{**q, "rows": n} for q, n in zip(view.quotes(), rows, strict=True)]
