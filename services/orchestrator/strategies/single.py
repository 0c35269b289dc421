"""`single`: members in order until one answers (a fallback chain).

While others wait behind it, an attempt may spend `panel_share` of the time left, and it is neither repeated nor waited for: the next member is the better
retry. The last one may spend all of the time. So one hanging member does not use up the time of those behind it.
"""

from services.models.answering import Answering
from services.models.completion import PlannedCall
from services.models.leading_text import LeadingText, Listener, both
from services.models.plan import RunPlan
from services.models.provenance import Method, Provenance
from services.models.retry_policy import NO_RETRY
from services.orchestrator.options import of_one_answer
from services.orchestrator.parameters import parameters_of
from services.orchestrator.refining import truncation
from services.orchestrator.run import Run, too_few
from services.orchestrator.strategy import Answer, Strategy


class Single(Strategy):
    """The first good answer of a chain of members."""

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a quorum other than one: a chain stops at the first answer."""
        parameters_of(self.parameters, plan)
        return of_one_answer(plan)

    async def answer(self, run: Run) -> Answer:
        """Try each call in turn. Raises `QuotaExhausted` or `NoQuorum` where none answers, `DeadlineSpent` where time runs out first."""
        started = run.clock()
        text = LeadingText(run.answer_listener())
        try:
            for position, call in enumerate(run.calls):
                await self._try(run, call, text, position)
                survivors = run.survivors([call])
                if survivors:
                    return Answer(
                        text=survivors[0].text,
                        provenance=Provenance(method=Method.SINGLE, candidate_ids=(call.candidate_id,), answer_model=call.model),
                        degradations=truncation(survivors[0]),
                    )
                text.fail(position)
        finally:
            run.close_stage("panel", started, run.receipts)
        raise too_few(run, run.calls, 1, run.deadline)

    async def _try(self, run: Run, call: PlannedCall, text: LeadingText, position: int) -> None:
        """Ask one member; its text is the answer's as it grows."""
        last = position == len(run.calls) - 1
        answering = Answering(
            run.guarded,
            call,
            deadline=run.deadline if last else run.deadline.share(run.plan.options.panel_share),
            retry=run.plan.options.retry if last else NO_RETRY,
            listener=both(speaking_as(text, position), run.candidate_listener(call)),
            on_attempt=run.on_attempt(),
        )
        run.record(call, await answering.answer(patient=last))
        run.tell_finished(call)


def speaking_as(text: LeadingText, speaker: int) -> Listener | None:
    """Return a listener that passes one call's text on as that of a speaker; None where nobody listens."""
    on_text = text.microphone(speaker)
    return None if on_text is None else Listener(on_text=on_text, on_restart=lambda: text.fail(speaker))
