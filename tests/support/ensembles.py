"""Ensembles in memory, on virtual time: the real guard and strategies over scripted models and a recording limiter."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.chassis.deadline import Deadline
from services.chassis.errors import EnsembleError
from services.chassis.telemetry import Telemetry
from services.models.catalogue import Catalogue, ModelEntry
from services.models.chat import Timeouts
from services.models.conversation import Message, Role
from services.models.guard import Guard
from services.models.plan import Member, RunPlan, StrategyOptions
from services.models.prices import Price
from services.models.provenance import Degradation, Method, Provenance
from services.models.refinement import OnAnswer, Refined, Refinement, Writer
from services.models.reporter import OutcomeReporter
from services.orchestrator.ensemble import Ensemble, RunResult
from services.orchestrator.events import RunEvent
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import ScriptedChat

QUESTION = (Message(role=Role.USER, text="What is the capital of France?"),)


def entry(name: str, *, timeout: float = 60.0) -> ModelEntry:
    """Return a model that costs one micro-USD a token either way."""
    return ModelEntry(
        name=name,
        provider="scripted",
        provider_model=name,
        timeouts=Timeouts(total=timeout, first_token=timeout, idle=timeout),
        max_output_tokens=100,
        price=Price(input_usd_per_million=1.0, output_usd_per_million=1.0),
        stream=True,
        concurrency=8,
    )


@dataclass(slots=True, kw_only=True)
class JoiningRefiner:
    """A refiner in memory that joins what it is given; satisfies the port `Refiner`."""

    after_seconds: float = 0.0
    error: EnsembleError | None = None
    says_first: str = ""
    """What it says before it fails."""
    degradations: tuple[Degradation, ...] = ()
    """What it says of its answer."""
    asked: list[tuple[Refinement, float]] = field(default_factory=list)
    """Refinements with the seconds they were given."""

    async def refine(self, refinement: Refinement, deadline: Deadline, on_answer: OnAnswer | None = None) -> Refined:
        """Join the candidates, or fail as scripted."""
        self.asked.append((refinement, deadline.remaining()))
        await asyncio.sleep(self.after_seconds)
        if on_answer is not None and self.says_first:
            on_answer(self.says_first, False)
        if self.error is not None:
            raise self.error
        answer = " + ".join(candidate.text for candidate in refinement.candidates)
        if on_answer is not None:
            on_answer(answer, False)
        ids = tuple(candidate.candidate_id for candidate in refinement.candidates)
        return Refined(answer=answer, provenance=Provenance(method=Method.FUSED, candidate_ids=ids), degradations=self.degradations)


@dataclass(slots=True, kw_only=True)
class Bench:
    """One ensemble in memory with everything it stands on."""

    models: Sequence[str] = ("a", "b", "c", "w")
    timeout: float = 60.0
    permits: RecordingPermits = field(default_factory=RecordingPermits)
    chat: ScriptedChat = field(default_factory=ScriptedChat)
    refiner: JoiningRefiner = field(default_factory=JoiningRefiner)
    events: list[RunEvent] = field(default_factory=list)

    def guard(self) -> Guard:
        """Return a guard on the running loop's clock."""
        return Guard(
            permits=self.permits,
            reporter=OutcomeReporter(self.permits),
            catalogue=Catalogue([entry(name, timeout=self.timeout) for name in self.models]),
            providers={"scripted": self.chat},
            telemetry=Telemetry.off(),
            clock=asyncio.get_running_loop().time,
        )

    async def run(self, plan: RunPlan, *, seconds: float = 30.0, listen: bool = False) -> RunResult:
        """Run a plan; when it ends, in whatever way, wait until all reports are in."""
        clock = asyncio.get_running_loop().time
        guard = self.guard()
        ensemble = Ensemble(guard=guard, refiner=self.refiner, telemetry=Telemetry.off(), clock=clock)
        try:
            return await ensemble.run(plan, Deadline.after(seconds, clock=clock), self.events.append if listen else None)
        finally:
            await guard.reporter.aclose(60.0)


def plan(
    *models: str, strategy: str = "fusion", members: Sequence[Member] | None = None, options: StrategyOptions | None = None, include_candidates: bool = False
) -> RunPlan:
    """Return a plan with one seat for each model."""
    return RunPlan(
        run_id="run-1",
        messages=QUESTION,
        strategy=strategy,
        members=tuple(members) if members is not None else tuple(Member(member_id=model, model=model) for model in models),
        options=options or StrategyOptions(refiner=Writer(model="w")),
        include_candidates=include_candidates,
    )
