"""The simulation placement: the same agents in one thread on a simulated clock.

Against a simulated exchange (``backtest``) or a recorded day (``session``).
"""
