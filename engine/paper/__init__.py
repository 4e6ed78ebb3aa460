"""The embedded paper gateway: a TWS server, a matching engine, sources of market data. Attached to no shared memory."""
