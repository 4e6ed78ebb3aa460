"""The configuration files that ship."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from engine.config import Config, load
from engine.runtime.universe import instruments

CONFIG = Path(__file__).resolve().parents[2] / "config"


def test_default_file_names_every_knob_with_the_schemas_default() -> None:
    written = tomllib.loads((CONFIG / "default.toml").read_text())
    assert written == msgspec.json.decode(msgspec.json.encode(Config()))


def test_default_file_explains_every_knob() -> None:
    explained = False
    for line in (CONFIG / "default.toml").read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line.strip():
            explained = False
        elif not line.startswith("["):
            assert explained, f"{line} stands in a block without an explanation"


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIG.glob("*.toml")))
def test_every_file_is_accepted(name: str) -> None:
    config = load(CONFIG / name)
    assert instruments(config)


def test_staging_differs_from_live_in_values_only() -> None:
    staging, live = (tomllib.loads((CONFIG / f"{n}.toml").read_text()) for n in ("staging", "live.example"))
    assert staging["universe"] == live["universe"]
    assert staging["instance"]["mode"] == "paper"
    assert live["instance"]["mode"] == "live"


def test_accounts_fit_their_modes() -> None:
    assert load(CONFIG / "sim.toml").gateway.account.startswith("DUSIM")
    assert load(CONFIG / "paper.toml").gateway.account.startswith("DU0")
    assert not load(CONFIG / "live.example.toml").gateway.account.startswith("DU")
