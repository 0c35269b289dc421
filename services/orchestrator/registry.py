"""Every strategy by its name; adding one is a module of its own and a line here."""

from collections.abc import Mapping

from services.orchestrator.fusion import Fusion
from services.orchestrator.single import Single
from services.orchestrator.strategy import Strategy

STRATEGIES: Mapping[str, Strategy] = {
    "fusion": Fusion(),
    "single": Single(),
}
