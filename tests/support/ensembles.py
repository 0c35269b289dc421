"""Ensembles in memory, on virtual time: the real guard and strategies over scripted models and a recording limiter."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.chassis.deadline import Deadline
from services.chassis.errors import EnsembleError
from services.chassis.telemetry import Telemetry
from services.models.catalogue import Catalogue, ModelEntry
from services.models.chat import Timeouts
from services.models.conversation import Message, Role
from services.models.guard import Guard
from services.models.plan import Member, RunPlan, StrategyOptions
from services.models.prices import Price
from services.models.provenance import Degradation, Method, Provenance, Verdict
from services.models.receipt import CallReceipt
from services.models.refinement import Analysis, OnAnswer, Refined, Refinement, RefineMethod, Writer
from services.models.reporter import OutcomeReporter
from services.models.retry_policy import NO_RETRY
from services.orchestrator.ensemble import Ensemble, RunResult
from services.orchestrator.events import RunEvent
from services.orchestrator.recent_latencies import RecentLatencies
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
    """A refiner in memory, which asks no model; satisfies the port `Refiner`.

    It joins what it is given to fuse, picks the last of what it is given to judge, ranks in reversed order, and scores by the script.
    """

    after_seconds: float = 0.0
    error: EnsembleError | None = None
    fails: frozenset[RefineMethod] = frozenset(RefineMethod)
    """The methods for which the error is raised."""
    says_first: str = ""
    """What it says before it fails."""
    degradations: tuple[Degradation, ...] = ()
    """What it says of its answer."""
    scores: list[float | None] = field(default_factory=list)
    """For one SCORE after the other."""
    repaired: str = ""
    """What REPAIR writes."""
    analysis: Analysis | None = None
    calls: tuple[CallReceipt, ...] = ()
    """What each refinement is said to have done."""
    asked: list[tuple[Refinement, float]] = field(default_factory=list)
    """Refinements with the seconds they were given."""

    @property
    def methods(self) -> list[RefineMethod]:
        """What it was asked for, in order."""
        return [refinement.method for refinement, _ in self.asked]

    async def refine(self, refinement: Refinement, deadline: Deadline, on_answer: OnAnswer | None = None) -> Refined:
        """Do as the class says, or fail as scripted."""
        self.asked.append((refinement, deadline.remaining()))
        await asyncio.sleep(self.after_seconds)
        if on_answer is not None and self.says_first:
            on_answer(self.says_first, False)
        if self.error is not None and refinement.method in self.fails:
            raise self.error
        refined = self._refined(refinement)
        if on_answer is not None:
            on_answer(refined.answer, False)
        return replace(refined, calls=self.calls, degradations=self.degradations)

    def _refined(self, refinement: Refinement) -> Refined:
        candidates = refinement.candidates
        ids = tuple(candidate.candidate_id for candidate in candidates)
        last = candidates[-1]
        picked = Provenance(method=Method.JUDGED, candidate_ids=(last.candidate_id,), answer_model=last.model, verdict=Verdict(ranking=(last.candidate_id,)))
        match refinement.method:
            case RefineMethod.FUSE:
                joined = " + ".join(candidate.text for candidate in candidates)
                return Refined(answer=joined, provenance=Provenance(method=Method.FUSED, candidate_ids=ids, answer_model=refinement.writer.model))
            case RefineMethod.RANK:
                verdict = Verdict(ranking=ids[::-1], scores=tuple(place / max(1, len(ids) - 1) for place in range(len(ids)))[::-1])
                return Refined(answer=last.text, provenance=replace(picked, method=Method.RANKED, verdict=verdict))
            case RefineMethod.SCORE:
                return Refined(answer=last.text, provenance=picked, score=self.scores.pop(0))
            case RefineMethod.ANALYSE:
                return Refined(answer="", provenance=picked, analysis=self.analysis)
            case RefineMethod.REPAIR:
                return Refined(answer=self.repaired, provenance=picked)
            case _:
                return Refined(answer=last.text, provenance=picked)


@dataclass(slots=True, kw_only=True)
class Bench:
    """One ensemble in memory with everything it stands on."""

    models: Sequence[str] = ("a", "b", "c", "w")
    timeout: float = 60.0
    permits: RecordingPermits = field(default_factory=RecordingPermits)
    chat: ScriptedChat = field(default_factory=ScriptedChat)
    refiner: JoiningRefiner = field(default_factory=JoiningRefiner)
    latencies: RecentLatencies = field(default_factory=RecentLatencies)
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
            # Waits are as long as they can be.
            draw=lambda: 1.0,
        )

    async def run(self, plan: RunPlan, *, seconds: float = 30.0, listen: bool = False) -> RunResult:
        """Run a plan; when it ends, in whatever way, wait until all reports are in."""
        clock = asyncio.get_running_loop().time
        guard = self.guard()
        ensemble = Ensemble(guard=guard, refiner=self.refiner, telemetry=Telemetry.off(), latencies=self.latencies, clock=clock)
        try:
            return await ensemble.run(plan, Deadline.after(seconds, clock=clock), self.events.append if listen else None)
        finally:
            await guard.reporter.aclose(60.0)


def plan(*models: str, strategy: str = "fusion", members: Sequence[Member] | None = None, options: StrategyOptions | None = None, **fields: Any) -> RunPlan:
    """Return a plan with one seat for each model."""
    return RunPlan(
        run_id="run-1",
        messages=QUESTION,
        strategy=strategy,
        members=tuple(members) if members is not None else tuple(Member(member_id=model, model=model) for model in models),
        options=options or StrategyOptions(refiner=Writer(model="w")),
        **fields,
    )


def options(**fields: Any) -> StrategyOptions:
    """Return options with a refiner; the failures that a test scripts are not tried again unless it says so."""
    return StrategyOptions(**{"refiner": Writer(model="w"), "retry": NO_RETRY, **fields})
