"""The command line ``l2dash``: thin over the libraries. Every command is imported only when it is used."""

from __future__ import annotations


def main() -> int:
    """Entry point; returns the exit code: 0 done, 1 failed, 2 wrong arguments, 3 refused by state."""
    from engine.cli.app import app
    from engine.cli.errors import run

    return run(app)
