"""The end of a test run: what was not run and why, then one line with the totals. Exit 1 if anything failed."""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {
    "real_data": "needs the real order-book file; run ./ops/test.sh --all",
    "browser": "needs a browser; run ./ops/test.sh --all",
    "systemd": "boots a real systemd; run ./ops/test.sh --all",
    "container": "needs podman and an image; run ./ops/test.sh --all",
    "stress": "takes long; run ./ops/test.sh --all",
}


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def marked_files(mark: str) -> list[str]:
    """Test files that use a mark."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.Attribute) and node.attr == mark for node in ast.walk(tree)):
            found.append(path.relative_to(ROOT).as_posix())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--status", type=int, required=True)
    parser.add_argument("--passed", type=int, default=0)
    parser.add_argument("--failed", type=int, default=0)
    parser.add_argument("--all", type=int, default=0)
    arguments = parser.parse_args()
    passed, failed = arguments.passed, arguments.failed
    not_run: Counter[str] = Counter()
    try:
        cases = list(ET.parse(arguments.report).getroot().iter("testcase"))
    except (OSError, ET.ParseError):
        cases = []
        failed += 1
        say("pytest wrote no report: it did not finish")
    for case in cases:
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif skip is not None:
            not_run[f"{case.get('classname', '')}: {skip.get('message', 'no reason given')}"] += 1
        else:
            passed += 1
    if arguments.status not in (0, 1, 5) and failed == arguments.failed:
        failed += 1
        say(f"pytest ended with status {arguments.status}")
    if not arguments.all:
        for mark, reason in LEFT_OUT.items():
            for name in marked_files(mark):
                not_run[f"{name} [{mark}]: {reason}"] += 1
    if shutil.which("shellcheck") is None:
        not_run["shell scripts: shellcheck is not installed"] += 1
    if not_run:
        say("not run:")
        for reason, count in sorted(not_run.items()):
            say(f"  {reason}" + (f" ({count} tests)" if count > 1 else ""))
    say(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
