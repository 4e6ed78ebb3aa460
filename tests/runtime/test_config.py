from __future__ import annotations

from pathlib import Path

import pytest

from engine import config
from engine.config import ConfigError


def test_defaults_are_the_published_ones() -> None:
    c = config.load(None)
    assert c.limits.breaker_symbol_usd == 100_000
    assert c.limits.gate_symbol_usd == 90_000
    assert c.strategy.symbol_usd == 40_000
    assert c.guardrails.cooling_s == 300
    assert c.account_scope == "dedicated"


def test_dumped_configuration_parses_to_itself() -> None:
    c = config.load(None, {"limits": {"order_qty": 77.0}, "instance": {"name": "x"}})
    assert config.parse(config.dump(c)) == c


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits]\norder_qty = 5\nfoo = 1\n", r"a\.toml:3: limits\.foo.*unknown field"),
        ("[guardrails]\n\nspread_bps = -3\n", r"a\.toml:3: guardrails\.spread_bps = -3"),
        ("[guardrails]\nspread_bps = nan\n", r"guardrails\.spread_bps"),
        ("[guardrails]\ndrawdown_usd = inf\n", r"guardrails\.drawdown_usd"),
        ("[limits\n", r"not valid TOML"),
        ("[limits]\norder_notional_usd = 1e9\n", r"limits\.order_notional_usd = 1000000000.*gate's symbol cap"),
        ("[instance]\nmode = 'x'\n", r"instance\.mode = 'x'.*sim, paper, live"),
        ("[gateway]\nemergency_client_id = 11\n", r"emergency_client_id = 11.*another id"),
        ("[gateway]\nhost = 'gateway.lan'\n", r"gateway\.host = gateway\.lan.*IPv4 address or localhost"),
        ("[gateway]\nsecond_host = '::1'\n", r"gateway\.second_host = ::1.*or none"),
        ("[cockpit]\nhost = '0.0.0.0'\n", r"cockpit\.host = 0\.0\.0\.0.*loopback"),
        ("[instance]\nmode = 'paper'\n[universe]\nindex = 'none'\n", r"universe\.index = none"),
        ("[strategy]\nsymbol_usd = 95000\n", r"strategy\.symbol_usd = 95000.*90000"),
    ],
)
def test_impossible_values_are_refused_with_line_key_value_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.parse(text, "a.toml")


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: can't be read"):
        config.load(tmp_path / "none.toml")
