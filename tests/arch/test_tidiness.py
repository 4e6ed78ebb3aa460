"""What must never stand in a file of this project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = re.compile(r"/(?:root|home/\w+)/")
REGISTRY = re.compile(r"https?://[^\s\"']*/simple\b|(extra-index-url|find-links) *= *(https?|file):")
MARKET_DATA = re.compile(r"(?i)lobster|_orderbook_\d+\.csv|_message_\d+\.csv")
TEXT = {".py", ".sh", ".toml", ".md", ".yaml", ".lock", ".service", ".timer", ".target", ".js", ".html", ".css", ""}


def project_files() -> list[Path]:
    """Files of the project: git's list, or, in an unpacked archive, all but what tools make."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        made = {"var", "data", "build", "dist", "node_modules", "__pycache__"}
        found = [
            p for p in ROOT.rglob("*") if not any(x in made or x.startswith(".") for x in p.relative_to(ROOT).parts)
        ]
    return [p for p in found if p.is_file() and "vendor" not in p.parts]


def test_no_file_names_a_home_directory_or_a_package_registry() -> None:
    wrong = []
    for path in project_files():
        if path.suffix not in TEXT or path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        wrong += [f"{path.relative_to(ROOT)}: {m.group(0)}" for m in (HOME.search(text), REGISTRY.search(text)) if m]
    assert not wrong


def test_market_data_is_not_part_of_the_project() -> None:
    big = [p for p in project_files() if MARKET_DATA.search(p.name) and p.stat().st_size > 200_000]
    assert not big


def test_no_source_file_grows_beyond_six_hundred_lines() -> None:
    long = []
    for path in project_files():
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in ("engine", "shm"):
            lines = len(path.read_text().splitlines())
            if lines > 600:
                long.append(f"{path.relative_to(ROOT)}: {lines}")
    assert not long


def test_comments_leave_nothing_to_do() -> None:
    words = re.compile(r"\b(TODO|FIXME|HACK)\b")
    wrong = [
        f"{p.relative_to(ROOT)}"
        for p in project_files()
        if p.suffix == ".py" and p != Path(__file__) and words.search(p.read_text())
    ]
    assert not wrong
