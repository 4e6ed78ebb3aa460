"""Which configuration a command works with: that of a file to start from, or that of the running instance."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from engine.config import Config

F = TypeVar("F", bound=Callable[..., Any])
SHM_ROOT = "/dev/shm"


def config_option(function: F) -> F:
    """``--config FILE`` of commands that start something."""
    return click.option(
        "--config", "config_file", metavar="FILE", type=click.Path(path_type=Path), help="TOML file [env L2DASH_CONFIG]"
    )(function)


def target_options(function: F) -> F:
    """``--config`` and ``--instance`` of commands that talk to a running instance."""
    option = click.option("--instance", metavar="NAME", help="which instance [env L2DASH_INSTANCE; else the only one]")
    return config_option(option(function))


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")(function)


def starting(
    config_file: Path | None, *, mode: str | None = None, sections: dict[str, dict[str, Any]] | None = None
) -> Config:
    """Configuration to start with: file, then environment, then arguments. Directories come out absolute.

    Raises ConfigError.
    """
    from engine.config import load

    path = config_file or _file_of_environment()
    overrides: dict[str, dict[str, Any]] = {name: dict(values) for name, values in (sections or {}).items()}
    instance = overrides.setdefault("instance", {})
    for key, variable in (
        ("state_dir", "L2DASH_STATE_DIR"),
        ("backup_dir", "L2DASH_BACKUP_DIR"),
        ("name", "L2DASH_INSTANCE"),
    ):
        if os.environ.get(variable):
            instance[key] = os.environ[variable]
    if mode:
        instance["mode"] = mode
    config = load(path, overrides)
    # A running instance is addressed from any directory: what it keeps must not depend on ours.
    instance["state_dir"] = str(Path(config.instance.state_dir).absolute())
    instance["backup_dir"] = str(Path(config.instance.backup_dir).absolute())
    return load(path, overrides)


def _file_of_environment() -> Path | None:
    named = os.environ.get("L2DASH_CONFIG")
    return Path(named) if named else None


def running(config_file: Path | None = None, instance: str | None = None) -> Config | None:
    """Configuration of the running instance that is meant; None if there is none.

    Raises ConfigError, and UsageError when several run and none was named.
    """
    named = instance or os.environ.get("L2DASH_INSTANCE")
    if named:
        return _kept(named, SHM_ROOT)
    if config_file or _file_of_environment():
        config = starting(config_file)
        return _kept(config.instance.name, config.instance.shm_root)
    names = sorted(p.parent.name.removeprefix("l2dash-") for p in Path(SHM_ROOT).glob("l2dash-*/config.toml"))
    if len(names) > 1 and "default" not in names:
        raise click.UsageError(f"several instances are up, name one with --instance: {', '.join(names)}")
    return _kept("default" if "default" in names or not names else names[0], SHM_ROOT)


def _kept(name: str, shm_root: str) -> Config | None:
    """What a running instance keeps of its configuration, without importing the runtime and its kernels (1 s)."""
    from engine.config import load

    path = Path(shm_root) / f"l2dash-{name}" / "config.toml"
    return load(path) if path.is_file() else None


def target(config_file: Path | None = None, instance: str | None = None) -> Config:
    """The running instance's configuration. Raises Refused if nothing is up."""
    from engine.cli.errors import Refused

    config = running(config_file, instance)
    if config is None:
        raise Refused("no instance is up: start one with `l2dash up`")
    return config


def target_or_starting(config_file: Path | None = None, instance: str | None = None) -> Config:
    """The running instance's configuration, else the one that would be started: for files that outlive an instance."""
    return running(config_file, instance) or starting(config_file)
