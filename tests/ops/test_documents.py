"""Every command that a document names exists, and those marked as runnable run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from engine.cli.app import GROUPS, PLUMBING, app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "docs/RUNBOOK.md"]
COMMANDS = {name for group in (*GROUPS.values(), PLUMBING) for name in group}


def blocks(name: str) -> list[tuple[str, str]]:
    """(info string, body) of every fenced block."""
    return re.findall(r"^ *```(\w[^\n]*)\n(.*?)^ *```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


def lines_of_shell(name: str) -> list[str]:
    bodies = [body.replace("\\\n", " ") for info, body in blocks(name) if info.startswith("bash")]
    return [line.strip() for body in bodies for line in body.splitlines() if line.strip()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_l2dash_command_in_a_document_exists(name: str) -> None:
    named = set(re.findall(r"\bl2dash ([a-z][a-z-]*)", (ROOT / name).read_text()))
    assert named
    assert named <= COMMANDS, sorted(named - COMMANDS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_script_in_a_document_exists_and_is_executable(name: str) -> None:
    for script in set(re.findall(r"\bops/[\w-]+\.sh", (ROOT / name).read_text())):
        path = ROOT / script
        assert path.is_file(), script
        assert path.stat().st_mode & 0o111, f"{script} is not executable"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_option_of_a_command_in_a_shell_block_is_understood(name: str) -> None:
    for line in lines_of_shell(name):
        words = shlex.split(line, comments=True)
        if words[:1] != ["l2dash"]:
            continue
        command: click.Command = app
        context = click.Context(app)
        rest = words[1:]
        while isinstance(command, click.Group) and rest:
            found = command.get_command(context, rest[0])
            assert found is not None, line
            command, rest = found, rest[1:]
        options = {o for p in command.params for o in p.opts}
        for word in rest:
            if word.startswith("-"):
                assert word in options, f"{line}: {word}"


def test_links_between_documents_lead_somewhere() -> None:
    later = {"docs/ARCHITECTURE.md", "docs/BENCHMARKS.md", "docs/cockpit.png"}
    for name in [*DOCUMENTS, "docs/STYLE.md", "CHANGELOG.md"]:
        folder = (ROOT / name).parent
        for link in re.findall(r"\]\(([^)#:]+)", (ROOT / name).read_text()):
            relative = (folder / link).resolve().relative_to(ROOT).as_posix()
            assert (ROOT / relative).exists() or relative in later, f"{name}: {link}"


def test_runnable_blocks_of_the_runbook_run(tmp_path: Path) -> None:
    program = shlex.quote(str(Path(sys.executable).with_name("l2dash")))
    found = [body for info, body in blocks("docs/RUNBOOK.md") if info == "bash run"]
    assert found
    for body in found:
        script = f'set -e\nl2dash() {{ {program} "$@"; }}\n{body}'
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "L2DASH_STATE_DIR": str(tmp_path),
            "L2DASH_INSTANCE": "documents",
            "L2DASH_CONFIG": str(tmp_path / "ports.toml"),
        }
        (tmp_path / "ports.toml").write_text("[gateway]\nport = 45871\n[cockpit]\nport = 45872\nhealth_port = 45873\n")
        done = subprocess.run(
            ["bash", "-c", script],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{body}\n{done.stdout}{done.stderr}"
