"""What profiles are held against."""

import pytest

from services.cli.strategies import known_strategies
from services.orchestrator.registry import STRATEGIES


def test_every_strategy_is_known() -> None:
    """Those that the orchestrator runs, each with a check of its own."""
    assert set(known_strategies()) == set(STRATEGIES)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_each_strategy_says_what_it_does_not_take(name: str) -> None:
    """An option that no strategy has is refused by its path, in words that do not repeat its value."""
    problems = dict(known_strategies()[name]({"no_such_option": "hunter2"}))
    assert "no_such_option" in problems
    assert "hunter2" not in " ".join(problems.values())


def test_a_check_is_the_strategys_own() -> None:
    """What one takes another refuses."""
    assert list(known_strategies()["moa"]({"layers": 2})) == []
    assert [path for path, _ in known_strategies()["single"]({"layers": 2})] == ["layers"]
