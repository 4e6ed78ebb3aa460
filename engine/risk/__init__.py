"""Pure decisions about risk: stops, pre-trade gate, guardrails, flatten, accounting, reconciliation."""
