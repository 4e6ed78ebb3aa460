"""The table of commands. ``l2dash --help`` reads only this table."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives and what it does, in a few words."""

    module: str
    attribute: str
    help: str


GROUPS: dict[str, dict[str, Entry]] = {
    "Run": {
        "up": Entry("up", "up", "Start everything and stay in the foreground (or --detach)"),
        "down": Entry("lifecycle", "down", "Stop everything in order; positions stay unless --flatten"),
        "start": Entry("lifecycle", "start", "Start everything in the background, or the named services"),
        "stop": Entry("lifecycle", "stop", "Stop the named services, or everything"),
        "restart": Entry("lifecycle", "restart", "Restart the named services alone, one after the other"),
        "status": Entry("status", "status", "Services, stops, badges, positions; --latency for the hops"),
        "logs": Entry("logs", "logs", "Show and follow the services' logs"),
        "login": Entry("login", "login", "Print a fresh one-time cockpit address"),
    },
    "Emergency": {
        "flatten": Entry("flatten", "flatten", "Stop entries, cancel and close everything, wait until confirmed flat"),
        "kill": Entry("kill", "kill", "Latch KILL and end every process, also hung ones"),
        "pause": Entry("control", "pause", "Stop entries; risk-reducing orders pass"),
        "resume": Entry("control", "resume", "Release PAUSE"),
        "reset": Entry("control", "reset", "Release KILL, if its conditions are met"),
        "reconnect": Entry("control", "reconnect", "Reconnect to the broker now"),
    },
    "Trade": {
        "order": Entry("order", "order", "Send one order through the gate"),
        "cancel": Entry("order", "cancel", "Cancel one working order, or all"),
        "positions": Entry("status", "positions", "Positions with exposure by symbol"),
        "orders": Entry("blotter", "orders", "Orders of the journal, newest last"),
        "fills": Entry("blotter", "fills", "Fills of the journal, newest last"),
    },
    "Models and research": {
        "retrain": Entry("models", "retrain", "Train a candidate model; promoted if it passes the gate"),
        "models": Entry("models", "models", "List, promote and roll back models"),
        "backtest": Entry("backtest", "backtest", "Trade order-book files with the same agents, out of sample"),
        "replay": Entry("replay", "replay", "Run a recorded day through the same agents, and compare"),
        "simulate": Entry(
            "simulate", "simulate", "Search for faults: all agents, a faulty broker, one simulated clock"
        ),
        "bench": Entry("research", "bench", "Run the benchmarks"),
        "drill": Entry("drill", "drill", "Trip guardrails on a private sim system and show the course with times"),
        "paper-gateway": Entry("gateway", "paper_gateway", "Run the embedded broker alone, for any IB client"),
    },
    "Set-up and storage": {
        "backup": Entry("storage", "backup", "Back up models, logs, ticks and journal, verified"),
        "restore": Entry("storage", "restore", "Restore the backup of a UTC date"),
        "init": Entry("setup", "init", "Arm a new state directory for paper or live trading"),
        "config": Entry("setup", "config", "Check or show a configuration"),
        "preopen": Entry("preopen", "preopen", "What to look at before the session opens"),
        "incident": Entry("incident", "incident", "What tripped, what was done, and what is left to do"),
        "doctor": Entry("doctor", "doctor", "Check this host, and say what to fix"),
        "topology": Entry("setup", "topology", "Services, rings and cells"),
    },
}

PLUMBING: dict[str, Entry] = {
    "run": Entry("lifecycle", "run_one", "Run one service in the foreground (what units and containers call)"),
    "compile": Entry("lifecycle", "compile_kernels", "Compile all kernels into the cache"),
    "regions": Entry("lifecycle", "regions", "Create, keep, check or remove the shared memory of an instance"),
    "health": Entry("health", "health", "Exit 0 if a service is healthy (for healthchecks; reads one page of memory)"),
    "alert": Entry("control", "alert", "Journal an alert and send it to people"),
}


class Lazy(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for group in (*GROUPS.values(), PLUMBING) for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for group in (*GROUPS.values(), PLUMBING):
            if cmd_name in group:
                entry = group[cmd_name]
                command = getattr(importlib.import_module(f"engine.cli.{entry.module}"), entry.attribute)
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in {**GROUPS, "For units, containers and scripts": PLUMBING}.items():
            if group:
                with formatter.section(title):
                    formatter.write_dl([(name, entry.help) for name, entry in group.items()])


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="l2-dash", prog_name="l2dash")
def app() -> None:
    """L2 DASH: trading on Level-2 order books with regime models, at Interactive Brokers.

    Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 refused by the state of the system.
    """
