"""How the command line fails: one line on stderr and an exit code, never a traceback.

0 done, 1 failed, 2 wrong arguments or configuration, 3 refused by the state of the system.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130

_CODES = (
    ("engine.config", "ConfigError", USAGE),
    ("engine.runtime.instance", "InstanceRunning", REFUSED),
    ("engine.runtime.runner", "StartRefused", REFUSED),
    ("engine.risk.latch", "LatchExists", REFUSED),
    ("shm.errors", "RegionMissing", REFUSED),
)
"""Library errors that are not plain failures. Looked up among loaded modules, so that an error costs no import."""


class CliError(click.ClickException):
    """It was tried and failed."""

    exit_code = FAILED


class Refused(CliError):
    """The state of the system does not allow it; the text says what does."""

    exit_code = REFUSED


def code_of(error: BaseException) -> int:
    for module, name, code in _CODES:
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, getattr(loaded, name)):
            return code
    return FAILED


def say(text: str) -> None:
    """One line for a person, on stderr: stdout belongs to results."""
    click.echo(text, err=True)


def run(app: click.Command, arguments: list[str] | None = None) -> int:
    """Run the application and turn whatever it raises into one line and an exit code."""
    try:
        result = app.main(args=arguments, prog_name="l2dash", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "l2dash"
        say(f"{where}: {error.format_message()} ({where} --help)")
        return USAGE
    except click.ClickException as error:
        say(f"l2dash: {error.format_message()}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("l2dash: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone: no second complaint at exit
        return FAILED
    except Exception as error:
        if os.environ.get("L2DASH_TRACEBACK"):
            traceback.print_exc()
        code = code_of(error)
        text = str(error).strip() or type(error).__name__
        known = code != FAILED or type(error).__module__.startswith(("shm.", "engine.")) or isinstance(error, OSError)
        say(f"l2dash: {text}" if known else f"l2dash: {type(error).__name__}: {text} (L2DASH_TRACEBACK=1 shows where)")
        return code
