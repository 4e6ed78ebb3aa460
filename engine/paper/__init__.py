"""The embedded paper gateway: a TWS server, a matching engine and two sources of market data. Attached to no shared memory."""
