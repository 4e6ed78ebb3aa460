"""The tables of docs/PAPER_GATEWAY.md, derived from the gateway's own code; its prose is written by hand."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from engine.cli.gateway import paper_gateway
from engine.paper.config import PaperConfig
from engine.paper.faults import FAULTS
from engine.paper.manual import REQUESTS

SCENARIOS = Path("config/scenarios")
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _requests() -> str:
    return _table(("id", "call", "answer"), ((str(int(i)), f"`{c}`", a) for i, (c, a) in sorted(REQUESTS.items())))


def _arguments(name: str) -> str:
    texts = []
    for key, arg in FAULTS[name].args.items():
        default = "" if arg.default is None else f" = {str(arg.default).lower() if arg.default != '' else '(empty)'}"
        texts.append(f"`{key}`{default}: {arg.help}")
    return "<br>".join(texts)


def _faults() -> str:
    return _table(
        ("fault", "what happens", "arguments, with their defaults"),
        ((f"`{name}`", f.help, _arguments(name)) for name, f in FAULTS.items()),
    )


def _scenarios(root: Path) -> str:
    rows = []
    for path in sorted((root / SCENARIOS).glob("*.toml")):
        read = tomllib.loads(path.read_text())
        used = dict.fromkeys(entry["fault"] for entry in read["faults"])
        rows.append((f"`{path.name}`", read["title"], ", ".join(f"`{name}`" for name in used)))
    return _table(("file", "what happens", "faults"), rows)


def _options() -> str:
    rows = []
    shipped = {f.name: f.default for f in fields(PaperConfig)}
    names = {"max-messages-per-s": "max_client_messages_per_s", "depth-lines": "max_depth_lines"}
    names |= {"equity": "equity_usd", "master": "master_client_id", "faults": "faults_file", "state": "state_file"}
    for option in paper_gateway.params:
        long = max(option.opts, key=len).removeprefix("--")
        default = shipped.get(names.get(long, long.replace("-", "_")))
        told = (
            "" if default in (None, "", (), -1) else f"{default:,.0f}" if isinstance(default, float) else str(default)
        )
        if long == "control-port":
            told = "none"
        rows.append((f"`--{long}`", str(getattr(option, "help", "")).partition(" [")[0], told))
    return _table(("option", "meaning", "default"), rows)


def gateway_page(root: Path) -> str:
    """docs/PAPER_GATEWAY.md with every table made anew."""
    tables = {
        "requests": _requests(),
        "faults": _faults(),
        "scenarios": _scenarios(root),
        "options": _options(),
    }
    text = (root / "docs/PAPER_GATEWAY.md").read_text()
    found = {match[2] for match in _BLOCK.finditer(text)}
    if found != set(tables):
        raise ValueError(f"docs/PAPER_GATEWAY.md has blocks {sorted(found)}, expected {sorted(tables)}")
    return _BLOCK.sub(lambda match: match[1] + tables[match[2]] + match[3], text)
