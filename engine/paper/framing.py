"""Length-prefixed frames of the TWS socket protocol.

A frame is a 4-byte big-endian length followed by that many bytes. The limit protects the server: a peer that announces
a larger frame is not a TWS client, and its connection is given up.
"""

from __future__ import annotations

MAX_FRAME_BYTES = 64 * 1024
"""Largest frame accepted from a client. The longest real request (an order with all blocks) stays below 4 KiB."""

_PREFIX = 4


class FrameError(ValueError):
    """The byte stream is not a sequence of frames within the limit."""


def frame(payload: bytes) -> bytes:
    """One payload with its length in front."""
    return len(payload).to_bytes(_PREFIX, "big") + payload


def whole_frame(data: bytes) -> bytes | None:
    """The payload of received bytes that are one frame exactly, as most are; None for anything else."""
    length = len(data) - _PREFIX
    if 1 <= length <= MAX_FRAME_BYTES and int.from_bytes(data[:_PREFIX], "big") == length:
        return data[_PREFIX:]
    return None


class FrameDecoder:
    """Turns arbitrary slices of a byte stream into whole frames."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit_bytes

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def take(self, count: int) -> bytes | None:
        """The first ``count`` raw bytes, or None while fewer have arrived. Used for the unframed API mark only."""
        if len(self._buffer) < count:
            return None
        head = bytes(self._buffer[:count])
        del self._buffer[:count]
        return head

    def push(self, data: bytes) -> None:
        """Append received bytes."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """The next whole frame without its prefix, or None. Raises FrameError for an announced length out of limits."""
        buffer = self._buffer
        if len(buffer) < _PREFIX:
            return None
        length = int.from_bytes(buffer[:_PREFIX], "big")
        if not 1 <= length <= self._limit:
            raise FrameError(f"frame length {length} is outside 1..{self._limit} bytes; send one request per frame")
        end = _PREFIX + length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[_PREFIX:end])
        del buffer[:end]
        return payload
