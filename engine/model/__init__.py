"""Regime models: the compiled online filter, bundles on disk, and training in a process of its own."""
