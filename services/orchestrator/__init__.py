"""The orchestrator owns the run: strategy, fan-out, quorum, deadline split, cancellation, receipt."""
