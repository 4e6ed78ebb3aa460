"""Drills: each guardrail tripped on a running sim system by its real cause, and what must follow, with times."""
