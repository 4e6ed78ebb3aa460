"""The conformance table: every client library against every feature of the paper gateway, unmodified.

usage: python benchmarks/bench_conformance.py [--smoke] [--write] [CLIENT...]

It stands among the benchmarks because it is measured, not written. --smoke takes the client that needs nothing but
Python. --write puts the table into docs/PAPER_GATEWAY.md, if every client could be run.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "paper" / "conformance"))

import table

if __name__ == "__main__":
    sys.exit(table.main(["raw"] if "--smoke" in sys.argv else sys.argv[1:]))
