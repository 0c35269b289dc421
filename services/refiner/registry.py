"""What there is for each method."""

from collections.abc import Awaitable, Callable, Mapping

from services.models.refinement import Refined, RefineMethod
from services.refiner.analyse import analyse
from services.refiner.fuse import fuse
from services.refiner.judge import judge
from services.refiner.rank import rank
from services.refiner.repair import repair
from services.refiner.score import score
from services.refiner.session import Session

METHODS: Mapping[RefineMethod, Callable[[Session], Awaitable[Refined]]] = {
    RefineMethod.FUSE: fuse,
    RefineMethod.JUDGE: judge,
    RefineMethod.RANK: rank,
    RefineMethod.CONSISTENT: judge,
    RefineMethod.SCORE: score,
    RefineMethod.ANALYSE: analyse,
    RefineMethod.REPAIR: repair,
}
