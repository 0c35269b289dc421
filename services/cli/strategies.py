"""What profiles are held against before anything runs: the strategies that there are, and the parameters that each of them takes."""

from collections.abc import Mapping
from functools import partial

from services.chassis.configuration import ParametersCheck
from services.orchestrator.registry import STRATEGIES, problems_of


def known_strategies() -> Mapping[str, ParametersCheck]:
    """Return by the name of each strategy what finds out which parameters it does not take."""
    return {name: partial(problems_of, name) for name in STRATEGIES}
