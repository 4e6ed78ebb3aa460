"""The eight guardrails: one pure rule per badge, and the evaluator that runs them so that none fails silently."""
