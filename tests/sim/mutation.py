"""Mutants: the decisions with one check taken out, and the named tests that must notice. The list comes from the code.

``python tests/sim/mutation.py`` prints the table; exit 1 if a mutant survives. A new refusal, rule, block, fence or
condition of a release gets its mutant by being written; without a test that notices, it survives.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
Change = Callable[[ast.AST], bool]


@dataclass(frozen=True, slots=True)
class Target:
    """A function, what counts as a check in it, and the test files that know it."""

    group: str
    module: str
    function: str
    kind: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    target: Target
    number: int
    line: str


CONNECTION_TESTS = ("broker/test_connection_steps.py", "broker/test_connectivity.py")
RULE_TESTS = ("risk/test_rule_conditions.py", "risk/test_badges.py", "sim/test_decisions.py", "risk/test_guardrails.py")
OWNER_TESTS = ("risk/test_ownership.py", "sim/test_decisions.py")


def names(module: str, kind: str = "", but: tuple[str, ...] = ()) -> list[str]:
    """The functions that a module defines itself; with ``kind``, the methods and properties of that class of it."""
    whole = importlib.import_module(module)
    place, prefix = (getattr(whole, kind), f"{kind}.") if kind else (whole, "")
    found = {name: getattr(thing, "fget", thing) for name, thing in vars(place).items() if not name.startswith("__")}
    mine = [n for n, f in found.items() if isinstance(f, types.FunctionType) and f.__module__ == module]
    return [prefix + n for n in mine if n not in but]


def targets() -> list[Target]:
    """Every function that decides, with what is taken out of it."""
    from engine.risk.guardrails.evaluate import RULES

    found = [
        Target(
            "gate", "engine.risk.pretrade", "check", "return", ("risk_bridge/test_pretrade.py", "sim/test_decisions.py")
        ),
        Target("release", "engine.risk.release", "refusals", "append", ("risk/test_release.py",)),
        Target("blocks", "engine.risk.guardrails.blocks", "blocks", "if", ("sim/test_decisions.py",)),
        Target("blocks", "engine.risk.guardrails.blocks", "blocks", "pair", ("sim/test_decisions.py",)),
        Target("stops", "engine.risk.stops", "effective", "condition", ("sim/test_decisions.py",)),
        Target("owner", "engine.risk.ownership", "step", "condition", OWNER_TESTS),
        Target("owner", "engine.risk.ownership", "_normal", "condition", OWNER_TESTS),
        Target("lease", "engine.broker.deadman", "Lease.judge", "if", ("sim/test_decisions.py",)),
        Target("pace", "engine.broker.governor", "Governor.room", "if", ("sim/test_decisions.py",)),
        Target("pace", "engine.broker.governor", "Governor.spend", "if", ("sim/test_decisions.py",)),
        Target("link", "engine.risk.guardrails.link", "link_rule", "decision", ("risk/test_link_rule.py",)),
    ]
    for name in names("engine.risk.release"):
        found.append(Target("release", "engine.risk.release", name, "condition", ("risk/test_release.py",)))
    for name in names("engine.risk.flatten", but=("start", "excuse", "dumps")):
        found.append(Target("flatten", "engine.risk.flatten", name, "decision", ("risk/test_flatten_steps.py",)))
    for name in names("engine.broker.connectivity", "Connectivity"):
        found.append(Target("connection", "engine.broker.connectivity", name, "decision", CONNECTION_TESTS))
    for badge, (rule, _) in RULES.items():
        module = importlib.import_module(rule.__module__)
        for name, function in vars(module).items():
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                found.append(Target(f"rule {badge.name}", module.__name__, name, "breach", RULE_TESTS))
                if name != "lifted":  # not a decision; what it lifts stands in tests of the watchdog
                    found.append(Target(f"rule {badge.name}", module.__name__, name, "condition", RULE_TESTS))
    return found


def _resolve(target: Target) -> Any:
    found: Any = importlib.import_module(target.module)
    for name in target.function.split("."):
        found = getattr(found, name)
    found = getattr(found, "fget", found)
    return getattr(found, "py_func", found)


def _tree(target: Target) -> ast.Module:
    tree = ast.parse(textwrap.dedent(inspect.getsource(_resolve(target))))
    tree.body[0].decorator_list = []  # type: ignore[attr-defined]
    return tree


@dataclass(frozen=True, slots=True)
class Always:
    """An expression that is replaced: by a constant, or by one of its own branches."""

    node: ast.expr
    by: ast.expr


def _decisions(tree: ast.Module) -> list[tuple[ast.AST | Always, str]]:
    """Everything that decides: each condition never true, each operand of one left out, each choice always one way."""
    found: list[tuple[ast.AST | Always, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.If):
            found.append((Always(node.test, ast.Constant(False)), f"never: if {ast.unparse(node.test)}"))
        elif isinstance(node, ast.BoolOp):
            word = "and" if isinstance(node.op, ast.And) else "or"
            neutral = ast.Constant(isinstance(node.op, ast.And))
            if all(isinstance(v, ast.Attribute | ast.Name | ast.Constant) for v in node.values) and word == "or":
                found.append((Always(node, node.values[-1]), f"always the last: {ast.unparse(node)}"))
                continue  # a default, not a condition
            for value in node.values:
                found.append((Always(value, neutral), f"without: {word} {ast.unparse(value)}"))
        elif isinstance(node, ast.IfExp):
            for branch in (node.body, node.orelse):
                found.append((Always(node, branch), f"always: {ast.unparse(branch)}, of {ast.unparse(node)}"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("min", "max"):
            for value in node.args:
                found.append((Always(node, value), f"always: {ast.unparse(value)}, of {ast.unparse(node)}"))
    return sorted(found, key=lambda pair: (pair[0].node.lineno, pair[0].node.col_offset))  # type: ignore[union-attr]


def _wording(node: ast.expr) -> bool:
    """Text, or made of text."""
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(node))


def _conditions(tree: ast.Module) -> list[tuple[ast.AST | Always, str]]:
    """The decisions without those between words or bounds of a shown value: every condition, every operand, every
    choice of a state or a number."""
    shown = [n.args for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) in ("min", "max")]
    shown += [[n.body, n.orelse] for n in ast.walk(tree) if isinstance(n, ast.IfExp) and _wording(n.body)]
    shown += [[n.body, n.orelse] for n in ast.walk(tree) if isinstance(n, ast.IfExp) and _wording(n.orelse)]
    out = {id(expression) for expressions in shown for expression in expressions}
    return [(node, line) for node, line in _decisions(tree) if not (isinstance(node, Always) and id(node.by) in out)]


def _checks(tree: ast.Module, kind: str) -> list[tuple[ast.AST | Always, str]]:
    """Nodes of the tree that are checks of this kind, with the line that names them."""
    if kind == "decision":
        return _decisions(tree)
    if kind == "condition":
        return _conditions(tree)
    found: list[tuple[ast.AST | Always, str]] = []
    for node in ast.walk(tree):
        if kind == "return" and isinstance(node, ast.Return):
            if not (isinstance(node.value, ast.Constant) and node.value.value == 0):
                found.append((node, ast.unparse(node)))
        elif kind == "if" and isinstance(node, ast.If):
            found.append((node, "if " + ast.unparse(node.test)))
        elif kind == "append" and isinstance(node, ast.Expr) and ".append(" in ast.unparse(node):
            found.append((node, ast.unparse(node)))
        elif kind == "pair" and isinstance(node, ast.Tuple) and len(node.elts) == 2:
            if ast.unparse(node.elts[1]).startswith("BlockReason."):
                found.append((node, ast.unparse(node)))
        elif kind == "breach" and isinstance(node, ast.Call) and ast.unparse(node.func) == "BadgeResult":
            words = [k for k in node.keywords if k.arg in ("breach", "block_symbols", "block_reasons")]
            found += [(k, ast.unparse(k)) for k in words if ast.unparse(k.value) not in ("0", "Breach.NONE")]
            found += [(a, ast.unparse(a)) for a in node.args[5:]]  # the same three, by position
    return sorted(found, key=lambda pair: (pair[0].lineno, pair[0].col_offset))  # type: ignore[attr-defined]


def mutants() -> list[Mutant]:
    found = []
    for target in targets():
        found += [Mutant(target, n, line) for n, (_, line) in enumerate(_checks(_tree(target), target.kind))]
    return found


def _mutated(mutant: Mutant) -> types.FunctionType:
    tree = _tree(mutant.target)
    node = _checks(tree, mutant.target.kind)[mutant.number][0]

    class Cut(ast.NodeTransformer):
        def visit(self, here: ast.AST) -> Any:
            if isinstance(node, Always):
                return ast.copy_location(node.by, here) if here is node.node else self.generic_visit(here)
            if here is node:
                if isinstance(here, ast.Return | ast.Expr):
                    return ast.copy_location(ast.Pass(), here)
                if isinstance(here, ast.If):
                    here.test = ast.copy_location(ast.Constant(False), here.test)
                    return self.generic_visit(here)
                if isinstance(here, ast.Tuple):
                    here.elts[0] = ast.copy_location(ast.Constant(False), here.elts[0])
                    return here
                return None if isinstance(here, ast.keyword) else ast.copy_location(ast.Constant(0), here)
            return self.generic_visit(here)

    tree = ast.fix_missing_locations(Cut().visit(tree))
    original = _resolve(mutant.target)
    space: dict[str, Any] = {}
    flags = __future__annotations()
    exec(compile(tree, f"<mutant of {mutant.target.function}>", "exec", flags), original.__globals__, space)
    made: types.FunctionType = next(iter(space.values()))
    return made


def __future__annotations() -> int:
    import __future__

    return __future__.annotations.compiler_flag


@contextlib.contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """While inside, everybody who calls the function gets the mutant."""
    made = _mutated(mutant)
    module = importlib.import_module(mutant.target.module)
    if mutant.target.module == "engine.risk.pretrade":
        import numpy as np

        before = module.check

        def check(*arguments: Any) -> int:
            views = [a.view(np.recarray) if a.dtype.names else a for a in arguments]
            return int(made(*views) or 0)

        check.py_func = made  # type: ignore[attr-defined]
        module.check = check  # type: ignore[attr-defined]
        try:
            yield
        finally:
            module.check = before  # type: ignore[attr-defined]
        return
    original = _resolve(mutant.target)
    code = original.__code__
    original.__code__ = made.__code__
    try:
        yield
    finally:
        original.__code__ = code


class Tests:
    """Tests of a file as plain calls, collected once: pytest's own machinery would cost more than they do."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[str, Callable[[], None]]]] = {}

    def pytest_collection_finish(self, session: Any) -> None:
        from hypothesis import Phase, settings

        for item in session.items:
            values = item.callspec.params if hasattr(item, "callspec") else {}
            if set(inspect.signature(item.obj).parameters) - set(values) and not hasattr(item.obj, "hypothesis"):
                continue  # it needs a fixture
            known = getattr(item.obj, "_hypothesis_internal_use_settings", None)
            if known is not None:  # thirty examples notice a missing check, and nobody needs the smallest one
                phases = (Phase.explicit, Phase.generate)
                few = settings(known, max_examples=30, phases=phases, deadline=None, database=None, derandomize=True)
                item.obj._hypothesis_internal_use_settings = few
            file = str(Path(item.path).relative_to(TESTS))
            self.calls.setdefault(file, []).append((item.name, functools.partial(item.obj, **values)))
        for calls in self.calls.values():  # plain ones first: they are the quickest to notice
            calls.sort(key=lambda c: hasattr(c[1].func, "hypothesis"))  # type: ignore[attr-defined]

    def killer(self, files: tuple[str, ...]) -> str:
        """Name of the first test that fails, "" if all pass."""
        import pytest

        for file in files:
            for name, call in self.calls[file]:
                try:
                    call()
                except (Exception, pytest.fail.Exception):  # "did not raise" is no Exception
                    return f"{file.rpartition('/')[2]}::{name}"
        return ""


def collected(files: tuple[str, ...]) -> Tests:
    import pytest

    tests = Tests()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        pytest.main(
            ["--collect-only", "-q", "-p", "no:cacheprovider", *(str(TESTS / f) for f in files)], plugins=[tests]
        )
    missing = [f for f in files if not tests.calls.get(f)]
    if missing:
        raise RuntimeError(f"no tests in {', '.join(missing)}: {out.getvalue()[-1000:]}")
    return tests


EQUIVALENT: dict[str, str] = {
    "if priority == Priority.URGENT": "the general formula gives the same for URGENT; the branch saves a comparison",
    "always: rejects[symbol], of min(rejects[symbol], 10)": "bounds the size of a number; the next one its value",
    "always: self.attempts, of min(self.attempts, 16)": "bounds the size of a number; the next one its value",
    "without: and since[i]": "what is 0 is set to 0",
    "always: warned(value, limit, state.state, g.warn_share), of BadgeState.WARN if value > limit else "
    "warned(value, limit, state.state, g.warn_share)": "above the limit is above the share of it: WARN as well",
    "always: warned(worst, g.drift_pct, state.state, g.warn_share), of BadgeState.WARN if beyond else "
    "warned(worst, g.drift_pct, state.state, g.warn_share)": "above the limit is above the share of it: WARN as well",
    "without: or math.isnan(day.base_usd)": "equity is made of it, and not a number either",
    "without: and count": "a count of none is below the share of any number of symbols",
    "without: and until": "no time is before 0",
}
"""Mutants that change nothing that anybody could see, each with the reason why."""


def main() -> int:
    everything = mutants()
    tests = collected(tuple(sorted({t for m in everything for t in m.target.tests})))
    broken = tests.killer(tuple(tests.calls))
    if broken:
        print(f"not even the original passes: {broken}")
        return 1
    survived = 0
    for mutant in everything:
        label = f"{mutant.target.group:12} {mutant.target.function}#{mutant.number}: {mutant.line[:70]}"
        if mutant.line in EQUIVALENT:
            print(f"{label:100} equivalent: {EQUIVALENT[mutant.line]}")
            continue
        with applied(mutant):
            name = tests.killer(mutant.target.tests)
        survived += not name
        print(f"{label:100} {name or 'SURVIVED'}", flush=True)
    print(f"{len(everything)} mutants, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main())
