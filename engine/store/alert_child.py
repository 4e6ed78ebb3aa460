"""Delivers alert messages through apprise, in a process of its own: the library and its services need memory and time.

Reads one JSON line per message from stdin, {"urls", "title", "body", "severity"}, answers each with {"ok", "reason"} on
stdout. Ends when stdin does or after IDLE_S without a message.
"""

from __future__ import annotations

import contextlib
import logging
import select
import sys

import msgspec

IDLE_S = 60.0


class Request(msgspec.Struct):
    urls: str
    title: str
    body: str
    severity: str


class Answer(msgspec.Struct):
    ok: bool
    reason: str = ""


def deliver(request: Request) -> Answer:
    """Send one message to every URL; ok only if all of them took it."""
    import apprise

    kinds = {"P1": apprise.NotifyType.FAILURE, "P2": apprise.NotifyType.WARNING}
    channel = apprise.Apprise()
    if not channel.add(request.urls):
        return Answer(False, "no usable alert URL: see L2DASH_ALERT_P1, L2DASH_ALERT_P2, L2DASH_ALERT_ROUTINE")
    ok = channel.notify(
        title=request.title, body=request.body, notify_type=kinds.get(request.severity, apprise.NotifyType.INFO)
    )
    return Answer(bool(ok), "" if ok else "the receiver did not take it")


def main() -> int:
    """Serve until stdin ends or nothing came for IDLE_S."""
    logging.disable(logging.CRITICAL)
    out = sys.stdout
    while select.select([sys.stdin], [], [], IDLE_S)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        try:
            with contextlib.redirect_stdout(sys.stderr):  # whatever a plug-in prints must not look like an answer
                answer = deliver(msgspec.json.decode(line, type=Request))
        except Exception as error:
            answer = Answer(False, f"{type(error).__name__}: {error}")
        out.write(msgspec.json.encode(answer).decode() + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
