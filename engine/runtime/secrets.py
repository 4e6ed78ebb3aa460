"""Secrets: from the environment or from systemd credentials, never from the configuration file."""

from __future__ import annotations

import os
from pathlib import Path


def secret(name: str) -> str | None:
    """Value of a secret such as TRADING_TOKEN, or None. A credential file wins over the environment."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory:
        path = Path(directory) / name
        if path.is_file():
            return path.read_text().strip() or None
    return os.environ.get(name) or None
