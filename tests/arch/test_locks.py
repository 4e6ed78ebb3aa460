"""The locks pin what pyproject.toml asks for, with hashes, and name no address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lock: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9_.\-]+)==([^\s;\\]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-test.lock", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]),
    ],
)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(lock: str, wanted: list[str]) -> None:
    found = pins(lock)
    for text in wanted:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in found, f"{name} is not in {lock}: run ops/lock.sh"
        assert requirement.specifier.contains(found[name]), f"{name} {found[name]} in {lock}, wanted {text}"


def test_both_locks_pin_the_same_versions() -> None:
    base, test = pins("requirements.lock"), pins("requirements-test.lock")
    assert base == {name: test[name] for name in base}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_every_pin_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        assert "--hash=sha256:" in block, block[:80]


def test_compiled_packages_have_hashes_for_several_platforms() -> None:
    text = (ROOT / "requirements.lock").read_text()
    for name in ("numpy", "numba", "llvmlite", "orjson", "aiohttp", "psutil"):
        block = next(b for b in re.split(r"\n(?=[A-Za-z0-9])", text) if b.startswith(f"{name}=="))
        assert block.count("--hash") >= 6, f"{name}: {block.count('--hash')} hashes"
