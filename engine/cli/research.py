"""``l2dash bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from engine.cli.errors import Refused

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
_WITHOUT_PREFIX = ("tick_to_order", "tick_path")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--smoke", is_flag=True, help="a short run, to see that it works")
@click.argument("name", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def bench(smoke: bool, name: str | None, options: tuple[str, ...]) -> int:
    """Run a benchmark, or all of them; each prints its machine, its baseline and its figures. OPTIONS are its own."""
    files = {p.stem.removeprefix("bench_").replace("_", "-"): p for p in BENCHMARKS.glob("bench_*.py")}
    files |= {name.replace("_", "-"): BENCHMARKS / f"{name}.py" for name in _WITHOUT_PREFIX}
    known = sorted(files)
    if not known:
        raise Refused(f"no benchmarks in {BENCHMARKS}: they come with the sources")
    if name is not None and name not in known:
        raise click.BadParameter(f"{name!r}: there are {', '.join(known)}", param_hint="NAME")
    code = 0
    for one in [name] if name else known:
        click.echo(f"== {one}")
        command = [sys.executable, str(files[one]), *(["--smoke"] if smoke else []), *options]
        code = max(code, abs(subprocess.run(command, check=False).returncode))
    return min(code, 1)
