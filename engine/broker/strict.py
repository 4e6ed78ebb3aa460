"""The library's decoder made to tell what it can't read; by itself it writes that to a log and goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

NAMES = {
    3: "orderStatus", 4: "error", 5: "openOrder", 6: "updateAccountValue", 10: "contractDetails", 11: "execDetails",
    53: "openOrderEnd", 54: "accountDownloadEnd", 55: "execDetailsEnd", 59: "commissionReport", 61: "position",
    62: "positionEnd", 93: "marketRule",
}  # fmt: skip
ORDER_STATUS, ERROR, OPEN_ORDER, EXECUTION, COMMISSION, POSITION = 3, 4, 5, 11, 59, 61


class _Ear:
    """In the place of the decoder's logger: the handlers that it makes from tables report an error nowhere else."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def exception(self, *_: Any) -> None:
        self.error = sys.exc_info()[1]


def make_strict(decoder: Any, failed: Callable[[int, str], None]) -> None:
    """``failed`` is called with the number of every message that can't be read (0 if it has none), and why."""
    ear = _Ear()

    def interpret(fields: list[str]) -> None:
        ear.error = None
        number = int(fields[0]) if fields and fields[0].isdecimal() else 0
        handler = decoder.handlers.get(number)
        if handler is None:
            failed(number, "no such message is known")
            return
        try:
            handler(fields)
        except Exception as error:  # whatever a decoder raises on fields that are not what they should be
            ear.error = ear.error or error
        if ear.error is not None:
            failed(number, f"{type(ear.error).__name__}: {ear.error}")

    decoder.logger = ear
    decoder.interpret = interpret
