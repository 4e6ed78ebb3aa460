"""Strategies: pure decisions from what is known about a symbol to what should be sent."""
