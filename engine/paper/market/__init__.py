"""Market data sources of the paper gateway: a matching engine with a hidden-regime background flow, and file replay."""
