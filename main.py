"""The runbook's ``python main.py --retrain``."""

from __future__ import annotations

import sys

from engine.model.train import main

if __name__ == "__main__":
    sys.exit(main())
