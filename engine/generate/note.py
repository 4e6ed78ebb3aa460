"""The first line of every generated file."""

from __future__ import annotations

NOTE = "# Generated from engine/topology.py by `python -m engine.generate`; a test fails when it has drifted.\n"
