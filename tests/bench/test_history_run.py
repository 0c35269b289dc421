"""The history checker as a whole; `make history` runs it in earnest."""

import pytest

from bench.history.run import CannotRun, run


async def test_limiters_that_do_not_share_a_store_are_not_checked_together() -> None:
    """Each of them would grant all limits; that is said instead of found."""
    with pytest.raises(CannotRun, match="--replicas 1"):
        await run(operations=1, replicas=2, clients=1, seed=1, store="memory")


async def test_a_limiter_keeps_its_limits() -> None:
    """A short run against a real limiter with its state in memory: permits are granted and denied, and no reply contradicts another."""
    summary = await run(operations=150, replicas=1, clients=8, seed=1, store="memory")
    assert list(summary.violations) == []
    assert summary.counts["operations"] >= 150
    assert min(summary.counts[name] for name in ("grants", "duplicates", "crashes", "late")) > 0
    assert summary.denials["TOO_LARGE"] > 0
    assert summary.counts["unanswered"] == 0
