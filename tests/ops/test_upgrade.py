"""Upgrade and rollback without systemd: what is refused before anything that runs is touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from releases import archive, environment, python_for, version

pytestmark = pytest.mark.timeout(280)


def call(root: Path, script: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [str(root / "one/ops" / f"{script}.sh"), "--root", str(root / "home"), *arguments]
    more = environment(python_for(root / "python"), **settings)
    return subprocess.run(command, env=more, capture_output=True, text=True, timeout=260, check=False)


@pytest.mark.stress
def test_the_same_content_is_the_same_release_however_it_came(tmp_path: Path) -> None:
    source = version(tmp_path / "one", "1.0.1")
    assert call(tmp_path, "upgrade", "--prepare", str(source)).returncode == 0
    done = call(tmp_path, "upgrade", "--prepare", str(archive(source)))
    assert done.returncode == 0, done.stderr
    (release,) = [p for p in (tmp_path / "home/releases").iterdir() if not p.name.startswith(".")]
    assert release.name.startswith("1.0.1-")
    assert (release / "RELEASE").read_text() == f"{release.name}\n"
    assert not (tmp_path / "home/current").exists(), "to prepare touches nothing that runs"


def test_a_version_that_does_not_accept_the_hosts_configuration_is_refused(tmp_path: Path) -> None:
    source = version(tmp_path / "one", "1.0.1")
    (tmp_path / "host.toml").write_text("[gateway]\nportt = 1\n")
    done = call(tmp_path, "upgrade", str(source), L2DASH_CONFIG=str(tmp_path / "host.toml"))
    assert done.returncode == 1
    assert "portt" in done.stderr
    assert not (tmp_path / "home/current").exists()


def test_what_is_no_version_and_a_missing_former_one_are_named(tmp_path: Path) -> None:
    version(tmp_path / "one", "1.0.1")
    (tmp_path / "empty").mkdir()
    done = call(tmp_path, "upgrade", str(tmp_path / "empty"))
    assert (done.returncode, "no pyproject.toml" in done.stderr) == (1, True), done.stderr
    done = call(tmp_path, "rollback")
    assert (done.returncode, "no previous version" in done.stderr) == (3, True), done.stderr
    done = call(tmp_path, "upgrade")
    assert (done.returncode, "usage" in done.stderr) == (2, True), done.stderr
