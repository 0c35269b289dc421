"""How much time is kept back from the orchestrator."""

import pytest

from services.gateway.margin import TRAVEL_SECONDS, margin_for


@pytest.mark.parametrize(
    ("remaining", "step"), [(0.0, 0.001), (0.999, 0.001), (1.0, 0.01), (9.99, 0.01), (10.0, 0.1), (99.9, 0.1), (100.0, 1.0), (999.0, 1.0), (1000.0, 10.0)]
)
def test_two_roundings_and_the_way_back_are_kept(remaining: float, step: float) -> None:
    """The margin grows with the step to which gRPC rounds, and stays near two per cent."""
    assert margin_for(remaining) == pytest.approx(TRAVEL_SECONDS + 2 * step)
