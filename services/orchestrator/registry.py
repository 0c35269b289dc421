"""Every strategy by its name; adding one is a module of its own and a line here."""

from collections.abc import Mapping, Sequence

from services.orchestrator.parameters import problems_with
from services.orchestrator.strategies.best_of_n import BestOfN
from services.orchestrator.strategies.cascade import Cascade
from services.orchestrator.strategies.first import First
from services.orchestrator.strategies.fusion import Fusion
from services.orchestrator.strategies.moa import Moa
from services.orchestrator.strategies.rank import Rank
from services.orchestrator.strategies.rank_then_fuse import RankThenFuse
from services.orchestrator.strategies.self_moa import SelfMoa
from services.orchestrator.strategies.single import Single
from services.orchestrator.strategies.vote import Vote
from services.orchestrator.strategy import Strategy

STRATEGIES: Mapping[str, Strategy] = {
    "best_of_n": BestOfN(),
    "cascade": Cascade(),
    "first": First(),
    "fusion": Fusion(),
    "moa": Moa(),
    "rank": Rank(),
    "rank_then_fuse": RankThenFuse(),
    "self_moa": SelfMoa(),
    "single": Single(),
    "vote": Vote(),
}


def problems_of(strategy: str, parameters: Mapping[str, object]) -> Sequence[tuple[str, str]]:
    """Return what is wrong with parameters for a strategy by its name: the path below them, and words that do not repeat the value."""
    return tuple(problems_with(STRATEGIES[strategy].parameters, parameters))
