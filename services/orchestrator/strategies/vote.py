"""`vote`: a panel answers in parallel, an answer is taken out of each text, and the one with the most weight behind it wins.

That is self-consistency (Wang et al. 2022, arXiv:2203.11171), over models as over samples of one.

What is passed on is the text of the winner's heaviest candidate; the votes stand in the provenance. The panel ends as soon as the calls under way cannot change
the winner. With `universal` nothing is extracted: a judge picks the answer that is most consistent with the others (Chen et al. 2023, arXiv:2311.17311).
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from services.chassis.deadline import Deadline
from services.models.completion import PlannedCall
from services.models.plan import RunPlan
from services.models.provenance import Degradation, Method, Provenance, Verdict
from services.models.refinement import RefineMethod
from services.orchestrator.extraction import Extract, Extractor, Normaliser
from services.orchestrator.options import panel_deadline, quorum_of, with_refiner
from services.orchestrator.panel import gather
from services.orchestrator.parameters import Parameters, parameters_of
from services.orchestrator.refining import RETURN_MARGIN_SECONDS, chosen, fallback, refinement_of, sole_survivor, truncation
from services.orchestrator.run import Run, Survivor
from services.orchestrator.strategy import Answer, Strategy
from services.orchestrator.voting import Ballot, agreement, count, decided

_EXTRACTING = frozenset({"extract", "pattern", "pointer", "normalise"})
INLINE_EFFORT = 100_000
"""Up to which effort a text is searched at once; beyond it, in a thread, for a service does nothing else meanwhile otherwise."""
_SEARCHING = ThreadPoolExecutor(max_workers=2, thread_name_prefix="vote")
"""Threads of their own, so that patterns that were made to be slow keep nobody else waiting; RE2 lets others work meanwhile."""
_SUITABLE = {
    Extract.WHOLE_TEXT: (Normaliser.UNICODE, Normaliser.CASE, Normaliser.PUNCTUATION, Normaliser.SPACE),
    Extract.REGEX: (Normaliser.CASE, Normaliser.SPACE),
    Extract.JSON_POINTER: (Normaliser.SPACE,),
    Extract.LAST_NUMBER: (Normaliser.NUMBER,),
}
"""What is made alike where the request does not say."""


class VoteParameters(Parameters):
    """The options of vote alone."""

    extract: Literal["regex", "json_pointer", "last_number", "whole_text"] = "whole_text"
    """How the answer is taken out of a text."""
    pattern: str = ""
    """For regex: an RE2 pattern with at most one group; the last match counts."""
    pointer: str = ""
    """For json_pointer: where the answer stands in a JSON text (RFC 6901)."""
    normalise: list[Literal["case", "space", "punctuation", "unicode", "number"]] | None = None
    """What is made alike before answers are compared; by default what suits the extractor."""
    universal: bool = False
    """Extract nothing; have the refiner's model pick the most consistent answer. One call more, and free texts can be voted on."""
    passes: Annotated[int, Field(ge=1, le=2)] = 1
    """With universal: 2 lets the judge look a second time, with the order reversed."""

    def flaws(self) -> Iterator[tuple[str, str]]:
        """Find an extractor that can extract nothing, and one that is not used."""
        if self.universal:
            yield from ((name, "makes no sense together with universal") for name in sorted(self.model_fields_set & _EXTRACTING))
        elif flaw := self.extractor().check():
            yield flaw.field, flaw.problem

    def extractor(self) -> Extractor:
        """Return how answers are taken out."""
        kind = Extract(self.extract)
        asked = None if self.normalise is None else tuple(Normaliser(name) for name in self.normalise)
        return Extractor(kind=kind, pattern=self.pattern, pointer=self.pointer, normalise=_SUITABLE[kind] if asked is None else asked)


class Vote(Strategy):
    """The answer that most members give."""

    parameters: ClassVar[type[Parameters]] = VoteParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse an extractor that can extract nothing, and universal without a judge."""
        asked = parameters_of(VoteParameters, plan)
        return with_refiner(plan) if asked.universal else plan

    async def answer(self, run: Run) -> Answer:
        """Gather and count."""
        asked = parameters_of(VoteParameters, run.plan)
        quorum = quorum_of(run.plan, len(run.calls))
        if asked.universal:
            return await self._most_consistent(run, quorum, asked.passes)
        ballots = _Ballots(asked.extractor(), run.plan.options.early_stop_agreement, run.deadline.minus(RETURN_MARGIN_SECONDS))
        survivors = await gather(run, run.calls, quorum, panel_deadline(run), decided=ballots.decided)
        if len(survivors) == 1 and not ballots.settled:
            return sole_survivor(run, survivors[0])
        cast = await ballots.of(survivors)
        votes = count(cast)
        if not votes:
            return fallback(run, [survivor.candidate() for survivor in survivors], Degradation.NOTHING_EXTRACTED)
        run.agreement = agreement(cast)
        voters = [survivor for survivor in survivors if survivor.call.candidate_id in votes[0].candidate_ids]
        winner = max(voters, key=lambda survivor: survivor.call.weight)
        run.say_whole(winner.text)
        return Answer(
            text=winner.text,
            provenance=Provenance(
                method=Method.VOTED,
                candidate_ids=votes[0].candidate_ids,
                answer_model=winner.call.model,
                verdict=Verdict(agreed=len(votes) == 1, votes=votes),
            ),
            degradations=truncation(winner),
        )

    async def _most_consistent(self, run: Run, quorum: int, passes: int) -> Answer:
        survivors = await gather(run, run.calls, quorum, panel_deadline(run))
        if len(survivors) == 1:
            return sole_survivor(run, survivors[0])
        refinement = refinement_of(run, [survivor.candidate() for survivor in survivors], RefineMethod.CONSISTENT, passes=passes)
        return await chosen(run, refinement)


class _Ballots:
    """The votes so far; each text is looked at once."""

    def __init__(self, extractor: Extractor, enough: float | None, deadline: Deadline) -> None:
        """Take how votes are found, the agreement at which no more are needed, and until when a vote may be looked for."""
        self._extractor = extractor
        self._deadline = deadline
        self._enough = enough
        self._values: dict[str, str | None] = {}
        self.settled = False
        """Whether the vote ended before all had voted."""

    async def of(self, survivors: Sequence[Survivor]) -> list[Ballot]:
        """Return one ballot for each good answer."""
        return [Ballot(candidate_id=one.call.candidate_id, value=await self._value(one), weight=one.call.weight) for one in survivors]

    async def decided(self, survivors: Sequence[Survivor], outstanding: Sequence[PlannedCall]) -> bool:
        """Whether the calls under way can no longer change the winner, or enough agree."""
        cast = await self.of(survivors)
        agreed = agreement(cast)
        self.settled = decided(cast, [call.weight for call in outstanding]) or (self._enough is not None and agreed is not None and agreed >= self._enough)
        return self.settled

    async def _value(self, survivor: Survivor) -> str | None:
        candidate_id = survivor.call.candidate_id
        if candidate_id not in self._values:
            self._values[candidate_id] = await self._extracted(survivor.text)
        return self._values[candidate_id]

    async def _extracted(self, text: str) -> str | None:
        """Return a text's vote; one that is not found in time is none."""
        if self._extractor.effort(text) <= INLINE_EFFORT:
            return self._extractor.extract(text)
        try:
            async with asyncio.timeout(self._deadline.remaining()):
                return await asyncio.get_running_loop().run_in_executor(_SEARCHING, self._extractor.extract, text)
        except TimeoutError:
            return None
