"""Which part of a file trains and which part tests. Pure; training ends before the test begins.

Times are ns since midnight, as in the file.
"""

from __future__ import annotations

from dataclasses import dataclass

NS = 1_000_000_000
_MINUTE = 60 * NS


class WindowError(ValueError):
    """The windows asked for do not fit the file or each other; the text names both values."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Training on [train_from, train_until), test on [test_from, test_until)."""

    train_from_ns: int
    train_until_ns: int
    test_from_ns: int
    test_until_ns: int
    in_sample: bool


def time_of_day(text: str) -> int:
    """ns since midnight of "HH:MM" or "HH:MM:SS". Raises WindowError."""
    parts = text.split(":")
    if len(parts) in (2, 3) and all(p.isdigit() for p in parts):
        hours, minutes, seconds = (*map(int, parts), 0)[:3]
        if hours < 24 and minutes < 60 and seconds < 60:
            return ((hours * 60 + minutes) * 60 + seconds) * NS
    raise WindowError(f"{text!r}: a time of day is written HH:MM or HH:MM:SS")


def clock(t_ns: int) -> str:
    """HH:MM:SS of ns since midnight."""
    seconds = t_ns // NS
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def choose(
    first_ns: int, last_ns: int, *, start: str = "", end: str = "", train_until: str = "", in_sample: bool = False
) -> Windows:
    """Windows within a file that covers ``first_ns`` to ``last_ns``. Raises WindowError.

    Default: the first half trains, the second half tests. ``start`` moves the test's begin, and training ends there
    unless ``train_until`` says earlier. Only ``in_sample`` lets the model see what it is tested on: then it is trained
    on everything up to the test's end.
    """
    begin, stop = first_ns // NS * NS, last_ns // NS * NS + NS
    until = min(time_of_day(end), stop) if end else stop
    trained = time_of_day(train_until) if train_until else -1
    if start:
        test = max(begin, time_of_day(start))
    elif in_sample:
        test = begin
    elif trained >= 0:
        test = trained
    else:
        unit = _MINUTE if stop - begin > 20 * _MINUTE else NS
        test = (begin + until) // 2 // unit * unit
    covers = f"the file covers {clock(begin)} to {clock(stop)}"
    if not begin <= test < until:
        raise WindowError(f"the test would run from {clock(test)} to {clock(until)}: {covers}")
    if in_sample:
        return Windows(begin, trained if trained >= 0 else until, test, until, True)
    trained = test if trained < 0 else trained
    if trained > test:
        raise WindowError(
            f"--train-until {clock(trained)} is after the test's begin {clock(test)}: the model would have seen "
            "what it is tested on; move one of them, or say --in-sample and get a figure that is marked so"
        )
    if trained <= begin:
        raise WindowError(f"nothing to train on before {clock(trained)}: {covers}; start later, or say --in-sample")
    return Windows(begin, trained, test, until, False)
