"""Structured logs: JSON lines into ``state_dir/logs/<service>.log``; warnings also to stderr."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson

_MAX_BYTES, _KEEP = 16 * 1024 * 1024, 8
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "service": self._service,
            "message": record.getMessage(),
            **{k: v for k, v in vars(record).items() if k not in _STANDARD},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


def open_log(service: str, state_dir: Path, *, to_stderr: bool = True) -> logging.Logger:
    """The service's logger. Files are 0600 and rotate at 16 MiB, 8 are kept."""
    logger = logging.getLogger(f"l2dash.{service}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    directory = state_dir / "logs"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"{service}.log"
    path.touch(mode=0o600, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_KEEP, encoding="utf-8")
    file.setFormatter(JsonLines(service))
    logger.addHandler(file)
    if to_stderr:
        stream = logging.StreamHandler(sys.stderr)
        stream.setLevel(logging.INFO if os.environ.get("INVOCATION_ID") else logging.WARNING)
        stream.setFormatter(logging.Formatter(f"{service}: %(levelname)s %(message)s"))
        logger.addHandler(stream)
    return logger
