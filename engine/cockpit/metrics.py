"""Prometheus metrics, prefix ``l2dash_``, base units: read from shared memory when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from engine.cockpit.services import Services
from engine.cockpit.view import View
from engine.domain.codes import BadgeState, TradingState
from shm.counters import BUCKETS, bucket_low

CONTENT = "text/plain; version=0.0.4; charset=utf-8"
EDGES_S = (
    1e-6,
    2e-6,
    5e-6,
    1e-5,
    2e-5,
    5e-5,
    1e-4,
    2e-4,
    5e-4,
    1e-3,
    2e-3,
    5e-3,
    1e-2,
    2e-2,
    5e-2,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
)


class Collector:
    """Yields metric families from cells, heartbeats, counters and histograms."""

    def __init__(self, view: View, services: Services) -> None:
        self._view = view
        self._services = services
        self._lows = bucket_low(np.arange(BUCKETS, dtype=np.int64))
        self._mids = (self._lows + np.append(self._lows[1:], self._lows[-1])) / 2e9

    def describe(self) -> list[Metric]:
        return []  # built on demand; an unchecked collector

    def collect(self) -> Iterator[Metric]:
        view = self._view
        view.refresh(view.clock.now_ns())
        yield from self._trading()
        yield from self._services_families()
        yield from self._symbols()
        yield from self._counters()

    def _trading(self) -> Iterator[Metric]:
        view = self._view
        account, link = view.account(), view.connectivity()
        info = GaugeMetricFamily("l2dash_info", "Mode and instance", labels=["mode", "instance"])
        info.add_metric([view.mode, view.config.instance.name], 1)
        yield info
        state = GaugeMetricFamily("l2dash_trading_state", "1 for the state that holds", labels=["state"])
        now = view.trading_state()["state"]
        for s in TradingState:
            state.add_metric([s.name], float(s.name == now))
        yield state
        badge = GaugeMetricFamily(
            "l2dash_guardrail_state", "0 ok 1 warming 2 warn 3 stale 4 tripped 5 wait", labels=["guardrail"]
        )
        value = GaugeMetricFamily(
            "l2dash_guardrail_value", "What the guardrail measures, in its own unit", labels=["guardrail", "unit"]
        )
        limit = GaugeMetricFamily("l2dash_guardrail_limit", "Its limit", labels=["guardrail", "unit"])
        for g in view.guardrails():
            badge.add_metric([g["name"]], BadgeState[g["state"]].value)
            for family, number in ((value, g["value"]), (limit, g["limit"])):
                if number is not None:
                    family.add_metric([g["name"], g["unit"]], number)
        yield from (badge, value, limit)
        for name, words, number in (
            ("equity_usd", "Equity marked at mid", account["equity_usd"]),
            ("day_pnl_usd", "Profit and loss of the day", account["day_pnl_usd"]),
            ("drawdown_usd", "Drawdown that counts for the limit", account["drawdown_usd"]),
            ("drawdown_limit_usd", "Binding drawdown limit", account["drawdown_limit_usd"]),
            ("gross_exposure_usd", "Gross exposure", account["gross_usd"]),
            ("net_exposure_usd", "Net exposure", account["net_usd"]),
            ("broker_up", "1 while the broker link is up", float(link["link"] == "UP")),
            ("broker_round_trip_seconds", "Last round trip", None if link["rtt_ms"] is None else link["rtt_ms"] / 1e3),
            ("broker_working_orders", "Orders working at the broker", link["working_orders"]),
            ("broker_unknown_orders", "Orders of unknown fate", link["unknown_orders"]),
            (
                "order_efficiency_ratio",
                "(Orders + changes + cancels) / (executed orders + 1) of the day",
                link["order_efficiency"],
            ),
            ("flatten_running", "1 while a flatten runs", float(view.flattening())),
            ("cockpit_armed", "Arm leases", view.arm()["armed"]),
        ):
            if number is not None:
                yield GaugeMetricFamily(f"l2dash_{name}", words, value=number)

    def _services_families(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("l2dash_service_up", "1 when READY with a fresh heartbeat", labels=["service"])
        age = GaugeMetricFamily("l2dash_heartbeat_age_seconds", "Since the last heartbeat", labels=["service"])
        lag = GaugeMetricFamily("l2dash_ring_lag_records", "Records that wait for the service", labels=["service"])
        lost = CounterMetricFamily("l2dash_ring_lost_records", "Records lost by its lossy readers", labels=["service"])
        starts = CounterMetricFamily("l2dash_service_starts", "Starts in this instance", labels=["service"])
        for row in self._services.rows(self._view.now_ns):
            label = [row["name"]]
            up.add_metric(label, float(row["healthy"]))
            if row["heartbeat_age_s"] is not None:
                age.add_metric(label, row["heartbeat_age_s"])
            lag.add_metric(label, row["lag"])
            lost.add_metric(label, row["lost"])
            starts.add_metric(label, row["incarnation"])
        yield from (up, age, lag, lost, starts)

    def _symbols(self) -> Iterator[Metric]:
        view = self._view
        position = GaugeMetricFamily("l2dash_position_shares", "Broker-confirmed position", labels=["symbol"])
        exposure = GaugeMetricFamily("l2dash_exposure_usd", "Signed exposure at mid", labels=["symbol"])
        for p in view.positions():
            position.add_metric([p["symbol"]], p["qty"])
            if p["exposure_usd"] is not None:
                exposure.add_metric([p["symbol"]], p["exposure_usd"])
        age = GaugeMetricFamily(
            "l2dash_market_data_age_seconds", "Since the last message of the symbol", labels=["symbol"]
        )
        spread = GaugeMetricFamily("l2dash_spread_ratio", "Spread over mid", labels=["symbol"])
        for q in view.quotes():
            if q["age_s"] is not None:
                age.add_metric([q["symbol"]], q["age_s"])
            if q["spread_bps"] is not None:
                spread.add_metric([q["symbol"]], q["spread_bps"] / 1e4)
        confidence = GaugeMetricFamily(
            "l2dash_model_confidence_ratio", "60-s mean of the largest filtered probability", labels=["symbol"]
        )
        regime = GaugeMetricFamily("l2dash_model_regime", "Regime number", labels=["symbol"])
        for m in view.models():
            if m["confidence_ema"] is not None and not m["warming"]:
                confidence.add_metric([m["symbol"]], m["confidence_ema"])
                regime.add_metric([m["symbol"]], m["regime"])
        yield from (position, exposure, age, spread, confidence, regime)

    def _counters(self) -> Iterator[Metric]:
        families: dict[str, Any] = {}
        refused = CounterMetricFamily("l2dash_gate_refusals", "Orders refused by the gate", labels=["reason"])
        for service in self._services.services:
            counters = self._services.counters[service.name]
            for name in service.counters:
                if name.startswith("refused:"):
                    refused.add_metric([name.partition(":")[2]], counters.get(name))
                    continue
                gauge = name == "clients"
                family = families.setdefault(
                    name,
                    (GaugeMetricFamily if gauge else CounterMetricFamily)(
                        f"l2dash_{name}", name.replace("_", " "), labels=["service"]
                    ),
                )
                family.add_metric([service.name], counters.get(name))
            for name in service.histograms:
                counts = counters.histogram(name)
                total = int(counts.sum())
                cumulative = np.cumsum(counts)
                at = np.searchsorted(self._lows, np.asarray(EDGES_S) * 1e9, side="left")
                buckets = [
                    (f"{edge:g}", float(cumulative[min(int(i), BUCKETS) - 1]))
                    for edge, i in zip(EDGES_S, at, strict=True)
                ]
                family = families.setdefault(
                    f"h:{name}",
                    HistogramMetricFamily(
                        f"l2dash_{name.removesuffix('_ns')}_seconds",
                        name.removesuffix("_ns").replace("_", " "),
                        labels=["service"],
                    ),
                )
                family.add_metric([service.name], [*buckets, ("+Inf", total)], float((counts * self._mids).sum()))
        yield refused
        yield from families.values()


def exposition(view: View, services: Services) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(view, services))
    return bytes(generate_latest(registry))
