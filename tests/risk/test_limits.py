"""Limits that no trader can mean are refused before anything starts, whichever of them it is."""

from __future__ import annotations

import math

import msgspec
import pytest

from engine import config
from engine.config import ConfigError, Guardrails, Limits

NUMBERS = [
    (section, field.name)
    for section, schema in (("guardrails", Guardrails), ("limits", Limits))
    for field in msgspec.structs.fields(schema)
    if isinstance(field.default, float)
]


@pytest.mark.parametrize(("section", "key"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_no_limit_can_be_negative_infinite_or_not_a_number(section: str, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{key}"):
        config.load(None, {section: {key: value}})


@pytest.mark.parametrize(
    ("section", "key", "value", "allowed"),
    [
        ("guardrails", "lease_renew_ms", 200.0, "at most half of guardrails.lease_expiry_ms"),
        ("guardrails", "lease_expiry_ms", 6_000.0, "at most guardrails.watchdog_gone_s"),
        ("guardrails", "confidence_block_s", 61.0, "at most guardrails.confidence_kill_s"),
        ("guardrails", "link_down_kill_s", 601.0, "at most guardrails.reconnect_flatten_outage_s"),
        ("guardrails", "index_window_s", 319.0, "at most 318"),
        ("guardrails", "rate_sustained_s", 0.9, "at least 1"),
        ("guardrails", "warn_share", 0.0, "above 0"),
        ("guardrails", "confidence", 0.0, "above 0"),
        ("guardrails", "confidence", 0.71, "at least guardrails.confidence"),
        ("guardrails", "intents_per_s", 19.0, "at most guardrails.intents_per_s"),
        ("guardrails", "drawdown_usd", 2_000.0, "at most guardrails.drawdown_usd"),
        ("limits", "order_notional_usd", 90_001.0, "gate's symbol cap"),
        ("limits", "max_position_usd", 100_000.0, "gate's symbol cap"),
        ("strategy", "gross_usd", 450_001.0, "gate's gross cap"),
        ("gateway", "emergency_messages_per_s", 6, "5"),
        ("gateway", "reserved_per_s", 45, "40"),
    ],
)
def test_limits_that_contradict_each_other_are_refused_with_what_is_allowed(
    section: str, key: str, value: float, allowed: str
) -> None:
    with pytest.raises(ConfigError, match=allowed):
        config.load(None, {section: {key: value}})
