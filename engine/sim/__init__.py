"""Deterministic simulation: every agent, a faulty broker and an operator in one thread, on one clock, from one seed."""
