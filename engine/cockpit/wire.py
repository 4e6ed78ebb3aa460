"""Server-sent events on the wire."""

from __future__ import annotations

RETRY = b"retry: 250\n\n"


def frame(event: str, data: bytes, event_id: str | None = None) -> bytes:
    """One named event. ``data`` is compact JSON: it holds no line break."""
    head = f"event: {event}\n" if event_id is None else f"id: {event_id}\nevent: {event}\n"
    return head.encode() + b"data: " + data + b"\n\n"
