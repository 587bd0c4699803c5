"""The evidence: every method on every task, with intervals and a report."""
