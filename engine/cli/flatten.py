"""``l2dash flatten``: through the watchdog, or over an own broker connection when everything else hangs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import target, target_options, target_or_starting

if TYPE_CHECKING:
    from engine.config import Config

WAIT_S = 60.0


@click.command()
@target_options
@click.option("--direct", is_flag=True, help="over an own broker connection, with every service hung or dead")
@click.option("--wait", "wait_s", default=WAIT_S, show_default=True, help="seconds to wait for confirmed flat")
def flatten(config_file: Path | None, instance: str | None, direct: bool, wait_s: float) -> int:
    """Stop entries, cancel everything, close everything. Exit 0 only when the broker has confirmed flat.

    Afterwards it stays PAUSED until `l2dash resume`. With --direct and a living bridge, watchdog or supervisor it is
    `l2dash kill --flatten`: two hands that close the same position would turn it around.
    """
    if direct:
        config = target_or_starting(config_file, instance)
        senders = living_senders(config)
        if not senders:
            return flatten_directly(config)
        from engine.cli.kill import kill

        say(f"{' and '.join(senders)} may send too: KILL is latched and every process ended first")
        context = click.get_current_context()
        return int(context.invoke(kill, config_file=config_file, instance=instance, then_flatten=True, services=()))
    flatten_and_wait(target(config_file, instance), wait_s)
    return 0


def flatten_and_wait(config: Config, wait_s: float) -> None:
    """PAUSE at once, ask the watchdog to flatten, wait for confirmed flat. Raises Refused, CliError naming the rest."""
    from engine import topology
    from engine.cli.access import Access, Answer, wait_until
    from engine.cockpit.words import name_of
    from engine.domain.codes import CommandKind, FlattenState
    from engine.risk.flatten import FOREIGN

    with Access(config) as access:
        begun_ns = access.clock.now_ns()
        access.audit(CommandKind.PAUSE, "pause with flatten")
        access.stop(pause=True)
        if not access.alive(topology.WATCHDOG):
            raise CliError("entries are stopped, but the watchdog does not run: use `l2dash flatten --direct`")
        command = access.command(CommandKind.FLATTEN, reason="l2dash flatten")
        cell = access.context.cell_reader("flatten")
        seen = ""
        refused: list[Answer] = []

        def flat() -> bool:
            nonlocal seen
            value = cell.read()
            word = name_of(FlattenState, int(value["state"]))
            if word != seen and int(value["started_ns"]) > 0 and word not in ("IDLE", "FLAT"):
                say(f"flatten {word.lower().replace('_', ' ')}")
                seen = word
            answer = access.answer(command, 0.0)
            if answer is not None and not answer.done:
                refused.append(answer)
            return bool(refused) or (int(value["state"]) == FlattenState.FLAT and int(value["flat_ns"]) >= begun_ns)

        ended = wait_until(flat, wait_s, 0.01)
        if refused:
            raise Refused(f"flatten refused: {refused[0].text}")
        value = cell.read()
        if not ended:
            left = [i.symbol for i in access.context.instruments if int(value["remaining"]) >> i.index & 1]
            foreign = int(access.context.cell_reader("broker").read()["foreign_positions"])
            if foreign and config.account_scope == "dedicated":
                left.append(f"{FOREIGN} ({foreign}, outside the configured symbols)")
            raise CliError(
                f"not confirmed flat after {wait_s:.0f} s (state {name_of(FlattenState, int(value['state']))}, "
                f"remaining {', '.join(left) or 'unknown'}, open orders {int(value['open_orders'])}): it goes on; "
                "see `l2dash status`; `l2dash flatten --direct` ends every process first and closes by itself"
            )
    say("flat, confirmed by the broker; PAUSED until `l2dash resume`")


def living_senders(config: Config) -> list[str]:
    """Processes, hung ones too, that send orders of this instance: "broker-bridge (pid 12)"; and who restarts them."""
    from engine import topology
    from engine.cli.kill import supervisor_pid
    from engine.runtime.instance import living

    supervisor = supervisor_pid(config)
    restarts = [f"supervisor (pid {supervisor})"] if supervisor else []
    return restarts + [
        f"{life.service} (pid {life.pid})"
        for life in living(config)
        if life.service in (topology.BRIDGE, topology.WATCHDOG)
    ]


def flatten_directly(config: Config) -> int:
    """Cancel and close over an own connection with the emergency client id; exit code 0 only if verified flat."""
    from engine.broker.emergency import flatten_direct

    result = flatten_direct(config, say)
    if result.flat:
        say("flat, confirmed by the broker")
        return 0
    raise CliError(f"not flat: {result}")
