"""Starting and stopping: ``start``, ``stop``, ``restart``, ``down``, and what units and containers call."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import systemd
from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import config_option, running, starting, target, target_options

if TYPE_CHECKING:
    from engine.config import Config

DOWN_S = 30.0
READY_S = 120.0


@click.command()
@target_options
@click.argument("services", nargs=-1)
@click.pass_context
def start(ctx: click.Context, config_file: Path | None, instance: str | None, services: tuple[str, ...]) -> int:
    """Start everything in the background and wait until it is ready, or start the named services alone."""
    config = running(config_file, instance)
    if services:
        return _ask("start", services, target(config_file, instance))
    if config is not None and _supervised(config):
        return _ask("start", (), config)
    if systemd.installed() and config_file is None:
        systemd.call("start", [systemd.TARGET])
        return 0
    from engine.cli.up import up

    code: int = ctx.invoke(
        up, config_file=config_file, mode=None, live=False, observe=False, collect=False, detach=True
    )
    return code


@click.command()
@target_options
@click.argument("services", nargs=-1)
def stop(config_file: Path | None, instance: str | None, services: tuple[str, ...]) -> int:
    """Stop the named services in an orderly way; all of them without a name (like `down`)."""
    config = target(config_file, instance)
    return _ask("stop", services, config) if services else take_down(config)


@click.command()
@target_options
@click.argument("services", nargs=-1)
def restart(config_file: Path | None, instance: str | None, services: tuple[str, ...]) -> int:
    """Restart the named services alone, one after the other, each until READY. Releases no stop."""
    config = target(config_file, instance)
    code = _ask("restart", services, config)
    held = _held(config)
    if held:
        say(held)
    return code


@click.command()
@target_options
@click.option("--flatten", "flatten_first", is_flag=True, help="cancel and close everything first")
def down(config_file: Path | None, instance: str | None, flatten_first: bool) -> int:
    """Stop everything in order, within 20 s. Positions stay open unless --flatten is given."""
    config = target(config_file, instance)
    if flatten_first:
        from engine.cli.flatten import flatten_and_wait

        flatten_and_wait(config, 60.0)
    return take_down(config)


def take_down(config: Config) -> int:
    """Stop the whole instance, whoever runs it, and say loudly what stays open. Raises CliError if it does not end."""
    from engine.cli.access import Access, wait_until, what_remains
    from engine.domain.codes import Severity
    from engine.runtime.instance import living
    from engine.runtime.supervisor import ask

    remains = what_remains(config)
    if remains:
        say(f"P1 unguarded positions stay open at the broker: {remains}")
        with contextlib.suppress(Refused), Access(config) as access:
            access.alert(Severity.P1, f"stopped with unguarded positions: {remains}")
    if systemd.manages():
        systemd.call("stop", [systemd.TARGET, *systemd.units(tuple(life.service for life in living(config)))])
    elif ask(config, "down") is None:
        _stop_orphans(config)
    if not wait_until(lambda: not living(config), DOWN_S, 0.02):
        names = ", ".join(life.service for life in living(config))
        raise CliError(f"still running after {DOWN_S:.0f} s: {names}; end them with ops/kill.sh")
    wait_until(lambda: ask(config, "list") is None, 5.0, 0.02)
    say("stopped")
    return 0


def _stop_orphans(config: Config) -> None:
    """Services whose supervisor is gone: SIGTERM in stop order, each after the one before has ended."""
    from engine.cli.access import wait_until
    from engine.runtime.instance import heartbeat
    from engine.runtime.supervisor import STOP_ORDER
    from shm.errors import ShmError

    for name in STOP_ORDER:
        with contextlib.suppress(ShmError, ProcessLookupError):
            life = heartbeat(config, name)
            if life.alive:
                os.kill(life.pid, signal.SIGTERM)
                wait_until(lambda name=name: not heartbeat(config, name).alive, 10.0, 0.01)  # type: ignore[misc]


def _supervised(config: Config) -> bool:
    from engine.runtime.supervisor import ask

    return ask(config, "list") is not None


def _known(config: Config, services: tuple[str, ...]) -> tuple[str, ...]:
    from engine import topology

    names = tuple(s.name for s in topology.services(config.instance.mode))
    for name in services:
        if name not in names:
            raise click.UsageError(f"no service {name} in mode {config.instance.mode}: known are {', '.join(names)}")
    return services or names


def _ask(verb: str, services: tuple[str, ...], config: Config) -> int:
    """Ask whoever runs the services, one service after the other, and wait for what was asked."""
    from engine.cli.access import wait_until
    from engine.domain.codes import ServiceState
    from engine.runtime.instance import heartbeat
    from engine.runtime.supervisor import ask

    names = _known(config, services)
    by_systemd = systemd.manages()
    for name in names:
        before = heartbeat(config, name)
        if verb == "start" and before.alive and before.state == ServiceState.READY:
            say(f"{name} runs already")
            continue
        if by_systemd:
            systemd.call(verb, systemd.units((name,)))
        else:
            answer: dict[str, Any] | None = ask(config, verb, (name,))
            if answer is None:
                raise Refused(
                    f"no supervisor runs instance {config.instance.name}: use `l2dash up`, docker compose or systemctl"
                )
            if not answer.get("ok"):
                raise CliError(str(answer.get("error")))

        def settled(name: str = name, old: int = before.incarnation) -> bool:
            life = heartbeat(config, name)
            if verb == "stop":
                return not life.alive or life.state == ServiceState.STOPPED  # a guest's process goes on
            return life.alive and life.incarnation != old and life.state == ServiceState.READY

        started = time.monotonic()
        if not wait_until(settled, DOWN_S if verb == "stop" else READY_S, 0.01):
            raise CliError(f"{name} is not {'down' if verb == 'stop' else 'READY'} yet; see `l2dash logs {name}`")
        say(f"{name} {'stopped' if verb == 'stop' else 'ready'} after {time.monotonic() - started:.1f} s")
    return 0


def _held(config: Config) -> str:
    """What still holds after a restart, in words; empty if trading is free."""
    from engine.cockpit.view import View
    from engine.runtime.context import Context

    with Context.for_cli(config) as context:
        view = View(context)
        view.refresh(context.clock.now_ns())
        stops = view.stops()
    if stops.kill:
        return "KILL still holds: a restart releases nothing; `l2dash status` shows why, `l2dash reset` releases it"
    if stops.pause:
        return "PAUSE still holds: `l2dash resume` releases it"
    return ""


@click.command("run")
@config_option
@click.option("--live", is_flag=True, help="required for live trading [env L2DASH_LIVE=1]")
@click.argument("service")
def run_one(config_file: Path | None, live: bool, service: str) -> int:
    """Run one service in the foreground until SIGTERM."""
    from engine.cli.up import require_live_flag
    from engine.runtime.runner import run_service

    config = starting(config_file)
    _known(config, (service,))
    require_live_flag(config, live)
    return run_service(service, config)


@click.command("compile")
def compile_kernels() -> None:
    """Compile all kernels into the cache (up to a minute, once per version)."""
    from engine.runtime.kernels import compile_all

    took = compile_all(lambda text: say(text))
    say(f"kernels compiled in {took:.1f} s" if took else "kernels are compiled")


@click.command()
@config_option
@click.argument("verb", type=click.Choice(["create", "keep", "check", "remove"]))
def regions(config_file: Path | None, verb: str) -> int:
    """Create, keep, check or remove the shared memory of an instance; `keep` creates nothing and waits for SIGTERM.

    `check` looks at every invariant of every region, also while services run. Exit 1 if one is broken.
    """
    from engine.risk import latch
    from engine.runtime import instance

    config = starting(config_file)
    if verb == "remove":
        instance.remove(config)
        say(f"removed {config.shm_dir}")
    elif verb == "check":
        broken = instance.check(config)
        for line in broken:
            say(line)
        if broken:
            return 1
        say(f"{config.shm_dir} is sound")
    elif verb == "keep":
        ends = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # sigwait takes only what is blocked; else the default ends us
        signal.sigwait(ends)
    else:
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        latch.prepare(config.state_dir, config.instance.mode)
        if instance.living(config):
            say(f"{config.shm_dir} is in use: left as it is")
            return 0
        generation = instance.create(config)
        say(f"{config.shm_dir} generation {generation}")
    return 0
