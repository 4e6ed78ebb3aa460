"""``l2dash drill``: trip each guardrail by its real cause on a sim system, and show the course with times."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from engine.cli import show
from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import json_option, target

if TYPE_CHECKING:
    from engine.config import Config
    from engine.drill.instance import PrivateInstance
    from engine.drill.scenarios import Scenario
    from engine.drill.timeline import Outcome

VERDICT_S, ANSWER_S, RESTART_S = 2.0, 5.0, 60.0
_COLUMNS = {"t_s": "t s", "since_s": "since cause s", "step": "step", "who": "who", "event": "event"}


@click.command(
    epilog="BADGE: SPREAD POS COOL LAT DD (DD-LOSS DD-INDEX) KILL CONF DRIFT BROKER BROKER-1100 FLAP, or all. "
    "PROCESSES: KILL-BRIDGE STOP-BRIDGE KILL-WATCHDOG KILL-IN-FLATTEN WATCHDOG-HUNG BREACH-RECONNECT "
    "KILL-SERVICES STOP-SERVICES MUTE MUTE-ALL BRIDGE-GONE STOP-ALL CLOCK DISK-FULL. chaos: random kills."
)
@click.argument("badges", nargs=-1, required=True, metavar="BADGE|processes|chaos...")
@click.option("--instance", metavar="NAME", help="drill this running sim instance [default: a private one]")
@click.option("--kills", type=click.IntRange(1, 100_000), default=20, show_default=True, help="chaos: how many")
@click.option("--seed", type=int, default=1, show_default=True, help="chaos: the same seed makes the same choices")
@click.option("--minutes", type=click.FloatRange(0.1, 1_440), default=120.0, show_default=True, help="chaos: at most")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="chaos: keep instance and record here; the same command again goes on, until all kills are done",
)
@json_option
def drill(
    badges: tuple[str, ...], instance: str | None, kills: int, seed: int, minutes: float, keep: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Trip a guardrail by its real cause and watch: TRIPPED, KILL, flatten, confirmed flat, cooling, reset, ACTIVE.

    Starts a private sim instance with shortened times, and ends it. Exit 0 only if every course was the expected one.
    """
    from engine.drill.catalogue import ALL, chosen

    if any(badge.lower() == "chaos" for badge in badges):
        if len(badges) > 1 or instance:
            raise click.UsageError("chaos runs alone, on a private instance")
        return _chaos(kills, seed, minutes, keep, as_json)
    if keep:
        raise click.UsageError("--keep is for chaos")
    names: list[str] = []
    for badge in badges:
        found = chosen(badge)
        if not found:
            raise click.UsageError(f"no drill {badge}: there are {', '.join(ALL)}, DD, all, processes, chaos")
        names += [name for name in found if name not in names]
    outcomes = []
    with _terminated_in_order():
        for outcome in _on_running(names, instance) if instance else _on_private(names):
            outcomes.append(outcome)
            if not as_json:
                _print(outcome)
    failed = [o.name for o in outcomes if not o.passed]
    if as_json:
        show.as_json([asdict(o) for o in outcomes])
    else:
        good = len(outcomes) - len(failed)
        click.echo(f"{good} of {len(outcomes)} drills as expected" + (f"; not: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """SIGTERM ends a drill like Ctrl-C: what it started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _on_private(names: list[str]) -> Iterator[Outcome]:
    """Drills in private instances; consecutive ones with the same settings share one while it is as new."""
    from engine.drill.catalogue import ALL
    from engine.drill.instance import InstanceFailed, PrivateInstance, merged
    from engine.drill.scenarios import COMMON
    from shm import scratch

    with scratch.directory("l2dash-drill-models-") as kept:
        models = kept / "models"
        waiting = list(names)
        while waiting:
            first = ALL[waiting[0]]
            settings = first.settings
            begun = time.monotonic()
            private = PrivateInstance(
                merged(COMMON, settings), models, jumping=first.jumping, small_disk=first.small_disk
            )
            try:
                with private as config:
                    private.keep_models()
                    took = time.monotonic() - begun
                    say(f"private instance {config.instance.name} up after {took:.0f} s; shortened or changed for it:")
                    say("  " + settings_in_words(merged(COMMON, settings)))
                    while waiting and _alike(ALL[waiting[0]], first):
                        name = waiting.pop(0)
                        outcome = _play(name, config, merged(COMMON, settings), private)
                        yield outcome
                        if ALL[name].lasting or not outcome.passed:
                            break
            except InstanceFailed as error:
                raise CliError(str(error)) from error


def _on_running(names: list[str], instance: str) -> Iterator[Outcome]:
    """Drills on an instance that runs already, with its own thresholds. Raises Refused."""
    config = target(None, instance)
    if config.instance.mode != "sim":
        raise Refused(f"instance {instance} is in mode {config.instance.mode}: drills are for sim alone")
    if not config.paper.control_port:
        raise Refused(f"instance {instance} has no control port: set paper.control_port and start it again")
    say(f"instance {instance} is drilled with its own thresholds; its positions will be closed")
    for name in names:
        yield _play(name, config, {})


def _alike(one: Scenario, other: Scenario) -> bool:
    """They can share an instance."""
    return (one.settings, one.jumping, one.small_disk) == (other.settings, other.jumping, other.small_disk)


def settings_in_words(settings: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{section}.{key} = {value}" for section, keys in settings.items() for key, value in keys.items())


def _play(
    name: str, config: Config, settings: dict[str, dict[str, Any]], private: PrivateInstance | None = None
) -> Outcome:
    """One drill on an instance that is up. An unexpected course is an outcome; it is cleared up as far as possible."""
    from engine.drill.catalogue import ALL
    from engine.drill.hands import FaultFailed, Faults
    from engine.drill.processes import Processes
    from engine.drill.stage import Stage
    from engine.drill.timeline import Outcome, Timeline, Unexpected, figures_ms
    from engine.drill.watch import Watch
    from engine.runtime.context import Context

    scenario = ALL[name]
    processes = Processes(config, private.supervisor_pid) if private else None
    timeline, reason = Timeline(), ""
    faults = Faults(config.paper.control_port)
    with Context.for_cli(config) as context:
        watch = Watch(context, timeline)
        watch.poll()
        jump = private.jump if private and scenario.jumping else None
        stage = Stage(watch, OperatorHands(config), faults, timeline, processes, jump)
        try:
            stage.quiet_start()
            scenario.run(stage)
            stage.tidy()
        except (Unexpected, FaultFailed) as error:
            reason = str(error)
        finally:
            if processes is not None:
                processes.resume_all()
            faults("clear")
        watch.poll()
    return Outcome(name, scenario.title, not reason, reason, settings, timeline.shown(), figures_ms(timeline))


def _chaos(kills: int, seed: int, minutes: float, keep: Path | None, as_json: bool) -> int:
    """Random kills on a private instance; exit 0 only if nothing was lost, doubled, left open or unexplained."""
    from engine.drill import campaign as campaigns
    from engine.drill.chaos import SETTINGS, Chaos
    from engine.drill.hands import Faults
    from engine.drill.instance import InstanceFailed, PrivateInstance
    from engine.drill.processes import Processes
    from engine.drill.stage import Stage
    from engine.drill.timeline import Timeline
    from engine.drill.watch import Watch
    from engine.runtime.context import Context
    from engine.runtime.supervisor import ask
    from shm import scratch

    def told(r: campaigns.Round) -> None:
        if keep is not None:
            campaigns.save(campaign, keep)
        if not as_json:
            end = f"READY after {r.back_s:.1f} s, {r.course} after {r.agreed_s:.1f} s"
            end = f"WRONG: {r.wrong}" if r.wrong else end
            click.echo(f"{r.number:4d}  {r.what:42s} {end}" + "".join(f"; KILL by {trip}" for trip in r.trips))

    try:
        campaign = campaigns.load(keep, seed, kills) if keep is not None else campaigns.Campaign(seed, kills)
    except ValueError as error:
        raise Refused(str(error)) from error
    with _terminated_in_order(), scratch.directory("l2dash-drill-models-") as kept:
        private = PrivateInstance(SETTINGS, kept / "models", keep=keep)
        try:
            with private as config, Context.for_cli(config) as context:
                watch = Watch(context, Timeline())
                processes = Processes(config, private.supervisor_pid)
                stage = Stage(
                    watch, OperatorHands(config), Faults(config.paper.control_port), watch.timeline, processes
                )

                def stays_down() -> list[str]:
                    return list((ask(config, "list") or {}).get("stays_down", ()))

                Chaos(stage, campaign, stays_down).run(told, minutes * 60.0)
                if keep is not None:
                    campaigns.save(campaign, keep)
        except InstanceFailed as error:
            raise CliError(str(error)) from error
    if as_json:
        show.as_json(campaign.as_dict())
    else:
        for line in campaign.wrong:
            click.echo(f"WRONG: {line}")
        click.echo(
            f"{len(campaign.rounds)} of {kills} kills, seed {seed}, {campaign.elapsed_s:.0f} s in {campaign.portions} "
            f"portions, {campaign.executions} executions, {campaign.kills_latched} KILLs; {len(campaign.wrong)} wrong; "
            f"end: {campaign.end}"
        )
        for title, counts in (("disturbed", campaign.by_kind), ("KILL by", campaign.by_cause)):
            for kind, count in sorted(counts.items()):
                click.echo(f"  {count:4d} {title}: {kind}")
    return 1 if campaign.wrong else 0


def _print(outcome: Outcome) -> None:
    click.echo(f"\n{outcome.name}: {outcome.title}")
    several = sum(row["step"] == "cause" for row in outcome.timeline) > 1
    columns = _COLUMNS if several else {k: v for k, v in _COLUMNS.items() if k != "since_s"}
    show.table([row | _times(row) for row in outcome.timeline], columns, empty="nothing happened")
    click.echo(f"{outcome.name}: " + ("as expected" if outcome.passed else f"NOT as expected: {outcome.reason}"))


def _times(row: dict[str, Any]) -> dict[str, str]:
    return {name: "" if row[name] is None else f"{row[name]:+.3f}" for name in ("t_s", "since_s")}


class OperatorHands:
    """The operator's acts, each through the command line's own access, so that no lock is held in between."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def order(self, symbol: str, side: str, qty: int, limit: float = math.nan) -> tuple[bool, str]:
        from engine.cli.access import Access
        from engine.domain.codes import OrderState, Refusal

        with Access(self._config) as access:
            fields = _fields(side, qty, limit)
            intent = access.send_intent(access.instrument(symbol), f"drill {side} {qty} {symbol}", **fields)
            verdict = access.verdict(
                intent, VERDICT_S, settled=lambda s: s not in (OrderState.PENDING, OrderState.SENT)
            )
        if verdict is None:
            return False, "without a verdict of the gate"
        if verdict.state == OrderState.REFUSED:
            return False, f"refused by {Refusal(verdict.refusal).name}: {verdict.text}"
        return verdict.state != OrderState.REJECTED, f"{verdict.state.name} {verdict.text}".strip()

    def fire(self, symbol: str, side: str, qty: int) -> None:
        from engine.cli.access import Access

        with Access(self._config) as access:
            access.send_intent(access.instrument(symbol), f"drill {side} {qty} {symbol}", **_fields(side, qty))

    def burst(self, symbols: list[str], per_s: float, seconds: float) -> int:
        from engine.cli.access import Access

        count = max(1, round(per_s * seconds))
        with Access(self._config) as access:
            begun = time.monotonic()
            for i in range(count):
                side = "BUY" if i // len(symbols) % 2 == 0 else "SELL"
                symbol = symbols[i % len(symbols)]
                access.send_intent(access.instrument(symbol), f"drill {side} 1 {symbol}", **_fields(side, 1))
                time.sleep(max(0.0, begun + (i + 1) / per_s - time.monotonic()))
        return count

    def kill(self, reason: str) -> tuple[bool, str]:
        from engine.cli.access import Access
        from engine.domain.codes import CommandKind

        with Access(self._config) as access:
            access.audit(CommandKind.KILL, f"kill {reason}")
            access.stop(kill=True)
            answer = access.answer(access.command(CommandKind.KILL, reason=reason), ANSWER_S)
        return (answer.done, answer.text) if answer is not None else (False, "the watchdog has not answered")

    def reset(self, override: str, reason: str) -> tuple[bool, str]:
        from engine.cli.access import Access
        from engine.domain.codes import CommandKind
        from engine.risk.release import OVERRIDE_DAY

        words = f"{override}: {reason}" if override else reason
        with Access(self._config) as access:
            flags = OVERRIDE_DAY if override else 0
            command = access.command(CommandKind.RESET, flags=flags, reason=words, said=f"reset {words}")
            answer = access.answer(command, ANSWER_S)
        return (answer.done, answer.text) if answer is not None else (False, "the watchdog has not answered")

    def start(self, services: list[str]) -> tuple[bool, str]:
        return self._run("start", services)

    def restart(self, services: list[str]) -> tuple[bool, str]:
        return self._run("restart", services)

    def _run(self, word: str, services: list[str]) -> tuple[bool, str]:
        command = [sys.executable, "-m", "engine.cli", word, "--instance", self._config.instance.name, *services]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=RESTART_S, check=False)
        except subprocess.TimeoutExpired:
            return False, f"{word} {' '.join(services)}: not READY within {RESTART_S:.0f} s"
        return done.returncode == 0, " | ".join((done.stdout + done.stderr).split("\n")).strip(" |")


def _fields(side: str, qty: int, limit: float = math.nan) -> dict[str, Any]:
    """A market order for the day, or one at ``limit``."""
    from engine.domain.codes import IntentKind, OrderType, Side, TimeInForce

    kind = OrderType.MKT if math.isnan(limit) else OrderType.LMT
    return {
        "kind": int(IntentKind.NEW), "side": int(Side[side]), "order_type": int(kind), "tif": int(TimeInForce.DAY),
        "qty": float(qty), "limit_price": limit,
    }  # fmt: skip
