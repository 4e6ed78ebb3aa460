"""Commands to a running instance: ``pause``, ``resume``, ``reset``, ``reconnect``, ``alert``. No server is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import target, target_options

if TYPE_CHECKING:
    from engine.cli.access import Access
    from engine.domain.codes import CommandKind

ANSWER_S = 5.0
ADOPTED_S = 2.0


def _carry_out(access: Access, kind: CommandKind, *, to: str, flags: int = 0, reason: str = "", said: str = "") -> str:
    """Command and wait for its result. Raises Refused with the service's reason, CliError without an answer."""
    if not access.alive(to):
        raise Refused(f"{to} does not run: start it with `l2dash start {to}`")
    command = access.command(kind, to=to, flags=flags, reason=reason, said=said)
    answer = access.answer(command, ANSWER_S, of=to)
    if answer is None:
        raise CliError(f"{to} has not answered within {ANSWER_S:.0f} s: see `l2dash status` and `l2dash logs {to}`")
    if not answer.done:
        raise Refused(f"{kind.name.lower()} refused: {answer.text}")
    return answer.text


@click.command()
@target_options
def pause(config_file: Path | None, instance: str | None) -> None:
    """Stop entries at once; risk-reducing orders pass. Stays until `l2dash resume`."""
    from engine import topology
    from engine.cli.access import Access
    from engine.domain.codes import CommandKind

    with Access(target(config_file, instance)) as access:
        access.audit(CommandKind.PAUSE, "pause")
        access.stop(pause=True)
        if not access.alive(topology.WATCHDOG):
            say("PAUSED by the command line's own stop; the watchdog does not run")
            return
        command = access.command(CommandKind.PAUSE, reason="l2dash pause")
        answer = access.answer(command, ADOPTED_S)
    say(
        "PAUSED"
        if answer is not None and answer.done
        else "PAUSED by the command line's own stop; the watchdog has not confirmed yet"
    )


@click.command()
@target_options
def resume(config_file: Path | None, instance: str | None) -> None:
    """Release PAUSE. A KILL stays."""
    from engine import topology
    from engine.cli.access import Access
    from engine.domain.codes import CommandKind

    with Access(target(config_file, instance)) as access:
        text = _carry_out(access, CommandKind.RESUME, to=topology.WATCHDOG)
    say(text or "resumed")


@click.command()
@target_options
@click.option("--override", metavar="NAME", help="your name: lift a drawdown lock before the next session")
@click.option("--excuse-remaining", is_flag=True, help="release although something remains open, and have it journaled")
@click.option("--reason", default="", help="why, for the journal")
def reset(
    config_file: Path | None, instance: str | None, override: str | None, excuse_remaining: bool, reason: str
) -> None:
    """Release KILL: five minutes after confirmed flat, with every badge OK. Exit 3 with the reasons otherwise."""
    from engine import topology
    from engine.cli.access import Access
    from engine.domain.codes import CommandKind
    from engine.risk.release import EXCUSE_REMAINING, OVERRIDE_DAY

    flags = (OVERRIDE_DAY if override else 0) | (EXCUSE_REMAINING if excuse_remaining else 0)
    words = f"{override}: {reason}" if override else reason
    with Access(target(config_file, instance)) as access:
        said = f"reset with override by {override}" if override else "reset"
        said += " excusing what remains" if excuse_remaining else ""
        text = _carry_out(
            access, CommandKind.RESET, to=topology.WATCHDOG, flags=flags, reason=words, said=f"{said} {reason}".strip()
        )
    say(text or "released")


@click.command()
@target_options
def reconnect(config_file: Path | None, instance: str | None) -> None:
    """Reconnect to the broker now, without waiting for the back-off."""
    from engine import topology
    from engine.cli.access import Access
    from engine.domain.codes import CommandKind

    with Access(target(config_file, instance)) as access:
        text = _carry_out(access, CommandKind.RECONNECT, to=topology.BRIDGE)
    say(text or "reconnecting")


@click.command()
@target_options
@click.option("--severity", type=click.Choice(["P1", "P2", "ROUTINE"]), default="ROUTINE", show_default=True)
@click.argument("text")
def alert(config_file: Path | None, instance: str | None, severity: str, text: str) -> None:
    """Journal an alert; the recorder sends it to people."""
    from engine.cli.access import Access
    from engine.domain.codes import Severity

    with Access(target(config_file, instance)) as access:
        access.alert(Severity[severity], text)
