"""``python -m engine.generate``."""

from __future__ import annotations

import sys

from engine.generate import main

sys.exit(main(sys.argv[1:]))
