"""The simulation placement: the same agents in one thread on a simulated clock, against a simulated exchange or a recorded day."""
