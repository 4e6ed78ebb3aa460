"""``l2dash up``: compile, make a first model if there is none, start every service, say where to look."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import config_option, starting

if TYPE_CHECKING:
    from engine.config import Config
    from engine.runtime.supervisor import Supervisor

DETACHED_WAIT_S = 300.0
LIVE = "L2DASH_LIVE"


@click.command()
@config_option
@click.option("--mode", type=click.Choice(["sim", "paper", "live"]), help="overrides the file's")
@click.option("--live", is_flag=True, help=f"required for live trading [env {LIVE}=1]")
@click.option("--observe", is_flag=True, help="signals and guardrails, no orders")
@click.option("--collect", is_flag=True, help="record market data only: no model, no strategy")
@click.option("--market", metavar="FILE", help="sim: play an order-book recording instead of the generated market")
@click.option("--start", metavar="HH:MM", help="with --market: time of day in the recording to begin at")
@click.option("--detach", is_flag=True, help="return when everything is ready; stop with `l2dash down`")
def up(
    config_file: Path | None,
    mode: str | None,
    live: bool,
    observe: bool,
    collect: bool,
    market: str | None,
    start: str | None,
    detach: bool,
) -> int:
    """Start everything; Ctrl-C stops in order. The mode is sim unless the configuration says otherwise."""
    sections: dict[str, dict[str, Any]] = {"strategy": {"enabled": False}} if observe or collect else {}
    if start and not market:
        raise click.UsageError("--start names a time in a recording: give it with --market FILE")
    if market:
        sections |= recording(market, start)
    if observe or collect:
        os.environ["L2DASH_COLLECT" if collect else "L2DASH_OBSERVE"] = "1"  # inherited by the services
    config = starting(config_file, mode=mode, sections=dict(sections))
    require_live_flag(config, live)
    refuse_taken_ports(config)
    if detach:
        return _detached(config, collect)
    return _supervise(config, collect, click.echo, click.echo)


def recording(market: str, start: str | None) -> dict[str, dict[str, Any]]:
    """Configuration that plays a recording: its one symbol, no index. Raises CliError naming the file's defect."""
    from engine.paper.market.lobster_file import LobsterError, read_lobster

    try:
        day = read_lobster(market)
    except (LobsterError, OSError) as error:
        raise CliError(str(error)) from error
    paper = {"market": str(Path(market).absolute()), **({"start": start} if start else {})}
    return {"paper": paper, "universe": {"stocks": [{"symbol": day.symbol}], "index": "none"}}


def require_live_flag(config: Config, live: bool) -> None:
    """Real money needs an explicit flag besides the configuration. Raises UsageError, Refused."""
    if live and config.instance.mode != "live":
        raise click.UsageError(
            f"--live given, but the mode is {config.instance.mode}: set instance.mode or --mode live"
        )
    if config.instance.mode == "live" and not (live or os.environ.get(LIVE) == "1"):
        raise Refused(
            f"mode live trades real money in account {config.gateway.account}: add --live (or {LIVE}=1) to do so"
        )


def refuse_taken_ports(config: Config) -> None:
    """Raises CliError with one line saying who holds a port that a service of ours needs."""
    from engine.runtime.instance import living
    from engine.runtime.ports import holder

    if living(config):
        return  # the instance itself holds them; the supervisor says so better
    needed = [
        ("cockpit.port", config.cockpit.host, config.cockpit.port),
        ("cockpit.health_port", config.cockpit.health_host, config.cockpit.health_port),
    ]
    if config.instance.mode == "sim":
        needed.append(("gateway.port", config.gateway.host, config.gateway.port))
    for key, host, port in needed:
        found = holder(port, host) if port else ""
        if found:
            raise CliError(f"port {port} is held by {found}: end it or set {key} to another port")


def _supervise(
    config: Config,
    collect: bool,
    tell: Callable[[str], None],
    whisper: Callable[[str], None],
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Run the supervisor. ``whisper`` gets what must not reach a log: the one-time login."""
    from engine import topology
    from engine.cli.model_first import FirstModel
    from engine.risk import latch
    from engine.runtime import kernels

    started = time.monotonic()
    tell(f"L2 DASH  mode {config.instance.mode.upper()}  instance {config.instance.name}  state {config.state_dir}")
    supervisor = _loud_supervisor(config, tell)
    supervisor.lock()
    kernels.compile_all(_progress(tell))
    latch.prepare(config.state_dir, config.instance.mode)
    before: dict[str, Callable[[], bool]] = {}
    model = None
    if collect:
        for name in (topology.ML, topology.ALGO):
            supervisor.children.pop(name)
        tell("collecting: market data is recorded, nothing is modelled or traded")
    else:
        model = FirstModel(config, tell)
        before[topology.ML] = model.ready

    def ready() -> None:
        tell(f"ready after {time.monotonic() - started:.1f} s: {len(supervisor.children)} services")
        for line in addresses(config):
            whisper(line)
        if config.instance.mode == "sim":
            tell("Ctrl-C stops in order" if on_ready is None else "stop with: l2dash down")
        if on_ready is not None:
            on_ready()

    try:
        return supervisor.run(ready, before)
    finally:
        if model is not None:
            model.close()


def _loud_supervisor(config: Config, tell: Callable[[str], None]) -> Supervisor:
    from engine.cli.access import what_remains
    from engine.runtime.supervisor import Supervisor

    class Loud(Supervisor):
        """Says what stays open before the shared memory that knows it is removed."""

        def _stop_all(self) -> int:
            tell("stopping in order: entries end, working orders are cancelled, the journal is flushed")
            remains = what_remains(self.config)
            code = super()._stop_all()
            if remains:
                tell(f"P1 unguarded positions stay open at the broker: {remains}. Nothing watches them now")
            tell("stopped")
            return code

    return Loud(config, tell)


def _progress(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Compile progress: one line that is rewritten on a terminal, every fourth step elsewhere."""
    if sys.stdout.isatty() and tell is click.echo:
        return lambda text: click.echo(
            f"\r\x1b[K{text}", nl=text.split("/")[0].split()[-1] == text.split("/")[1].split()[0]
        )
    count = 0

    def sparse(text: str) -> None:
        nonlocal count
        count += 1
        if count % 4 == 0:
            tell(text)

    return sparse


def addresses(config: Config) -> list[str]:
    """Where to look: cockpit with a one-time login, health."""
    from engine.cli.login import cockpit_url

    health = f"http://{config.cockpit.health_host}:{config.cockpit.health_port}/health/all"
    return [f"cockpit  {cockpit_url(config)}", f"health   {health}"]


def _detached(config: Config, collect: bool) -> int:
    """Fork a supervisor that outlives us; relay what it says until it is ready or gone."""
    reading, writing = os.pipe()
    log_path = config.state_dir / "logs" / "supervisor.log"
    log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            code = _become_daemon(config, collect, writing, log_path)
        finally:
            os._exit(code)
    os.close(writing)
    os.waitpid(pid, 0)  # the middle process ends at once; the supervisor belongs to init
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        for text in _lines(pipe, time.monotonic() + DETACHED_WAIT_S):
            if text == "READY":
                return 0
            if text.startswith("error "):
                raise CliError(text.removeprefix("error "))
            say(text)
        if select.select([pipe], [], [], 0.0)[0]:
            raise CliError(f"the supervisor ended before everything was ready; see {log_path}")
    raise CliError(f"not ready after {DETACHED_WAIT_S:.0f} s; see {log_path} and `l2dash status`")


def _lines(pipe: FileIO, deadline_s: float) -> Iterator[str]:
    """Lines of a pipe until it ends or the deadline has come: a supervisor whose service stays down says nothing."""
    rest = b""
    while select.select([pipe], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
        found = os.read(pipe.fileno(), 65536)
        if not found:
            return
        *whole, rest = (rest + found).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)


class _Relay:
    """Says everything to the log, and to the waiting parent until it has been told that all is ready."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def to_parent(self, text: str) -> None:
        if self._pipe >= 0:
            try:
                os.write(self._pipe, f"{text}\n".encode())
            except OSError:
                self._pipe = -1  # nobody waits any more

    def tell(self, text: str) -> None:
        os.write(1, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n".encode())
        self.to_parent(text)

    def ready(self) -> None:
        self.to_parent("READY")
        os.close(self._pipe)
        self._pipe = -1


def _become_daemon(config: Config, collect: bool, pipe: int, log_path: Path) -> int:
    os.setsid()
    if os.fork():
        os._exit(0)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, goal in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, goal)
    relay = _Relay(pipe)
    try:
        return _supervise(config, collect, relay.tell, relay.to_parent, relay.ready)
    except Exception as error:
        relay.tell(f"error {error}")
        return 1
