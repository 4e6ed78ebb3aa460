"""Shared memory: regions, rings and cells. Depends on numpy, numba and the standard library only."""
