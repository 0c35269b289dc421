"""Fusion by a writer model, with a deterministic fallback.

several candidates --writer answers--> FUSED
                   `-writer fails----> FALLBACK (degraded): weight, else order
one candidate ------------------------> SOLE_SURVIVOR, as it is
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.chassis.deadline import Deadline
from services.chassis.errors import DependencyUnavailable
from services.models.completion import Attempt, Completion, PlannedCall, never_started
from services.models.conversation import Message, Role, Sampling
from services.models.guard import Guard, GuardedRun
from services.models.outcomes import Outcome
from services.models.provenance import Degradation, Method, Provenance
from services.models.refinement import OnAnswer, Refined, Refinement, best_candidate
from services.refiner.candidate_block import CLOSE, OPEN, CandidateBlock, candidate_block, seed_of
from services.refiner.prompts import Prompt, load_prompt

REFINER_MEMBER_ID = "refiner"
RETURN_MARGIN_SECONDS = 0.05
"""Kept back from the writer, so that a fallback still reaches the orchestrator in time."""


def _nonce() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuser:
    """Makes one answer of several candidates."""

    guard: Guard
    new_nonce: Callable[[], str] = _nonce
    clock: Callable[[], float] = time.monotonic

    async def refine(self, refinement: Refinement, deadline: Deadline, on_answer: OnAnswer | None = None) -> Refined:
        """Return one answer within the deadline; never fails for what a model or the limiter does.

        Raises `NotFound` where the writer is not in the catalogue.
        """
        self.guard.catalogue.get(refinement.writer.model)
        if len(refinement.candidates) == 1:
            return _sole_survivor(refinement, on_answer)
        prompt = load_prompt("fuse", 1)
        nonce = self.new_nonce()
        block = candidate_block(
            refinement.candidates,
            nonce=nonce,
            seed=seed_of(refinement.run_id) if refinement.shuffle_seed is None else refinement.shuffle_seed,
            byte_limit=refinement.candidate_byte_limit,
        )
        said = False

        def listen(text: str) -> None:
            nonlocal said
            said = True
            if on_answer is not None:
                on_answer(text, False)

        run = self.guard.begin(refinement.run_id, refinement.tenant)
        completion = await self._write(run, refinement, _messages(refinement, prompt, block, nonce), deadline.minus(RETURN_MARGIN_SECONDS), listen)
        if completion.ok and nonce in completion.text:
            # An answer with the code in it repeats the frame around the drafts, so it is none; the receipt says so.
            completion = replace(completion, text="", receipt=replace(completion.receipt, outcome=Outcome.EMPTY, reason="prompt_echoed"))
        if completion.ok:
            return Refined(
                answer=completion.text,
                provenance=Provenance(
                    method=Method.FUSED,
                    candidate_ids=tuple(candidate.candidate_id for candidate in refinement.candidates),
                    display_order=block.display_order,
                    prompt_version=prompt.version,
                    answer_model=refinement.writer.model,
                ),
                calls=(completion.receipt,),
                degradations=((Degradation.TRUNCATED,) if completion.truncated else ()) + run.degradations,
            )
        out_of_time = deadline.minus(RETURN_MARGIN_SECONDS).expired
        return _fallback(
            refinement,
            completion,
            (Degradation.NO_TIME_TO_REFINE if out_of_time else Degradation.REFINER_FAILED, *run.degradations),
            on_answer,
            block=block,
            prompt=prompt,
            restart=said,
        )

    async def _write(
        self, run: GuardedRun, refinement: Refinement, messages: tuple[Message, ...], deadline: Deadline, listen: Callable[[str], None]
    ) -> Completion:
        writer = refinement.writer
        planned = PlannedCall(
            candidate_id="",
            member_id=REFINER_MEMBER_ID,
            model=writer.model,
            messages=messages,
            sampling=refinement.sampling.overlaid(Sampling(temperature=writer.temperature, max_output_tokens=writer.max_output_tokens)),
            timeout_seconds=writer.timeout_seconds,
        )
        try:
            return await run.attempt(planned, deadline=deadline, on_text=listen)
        except DependencyUnavailable:
            # The candidates are paid for; that the limiter is away is no reason to throw them away.
            return never_started(Attempt(planned=planned), Outcome.LIMITER_UNAVAILABLE, "limiter_unavailable")


def _messages(refinement: Refinement, prompt: Prompt, block: CandidateBlock, nonce: str) -> tuple[Message, ...]:
    """Our instructions, the caller's own, the drafts as data, then the conversation as it was, so that its last message is what is replied to.

    With the drafts at the end, small models go on writing drafts instead of a reply (seen with SmolLM2-135M).
    """
    instructions = prompt.template.replace("{open}", OPEN).replace("{close}", CLOSE).replace("{nonce}", nonce)
    conversation = refinement.messages
    leading = next((position for position, message in enumerate(conversation) if message.role is not Role.SYSTEM), len(conversation))
    return (
        Message(role=Role.SYSTEM, text=instructions),
        *conversation[:leading],
        Message(role=Role.USER, text=f"Drafts of a reply to my last message below:\n\n{block.text}"),
        Message(role=Role.ASSISTANT, text="I will weigh them and write one reply of my own."),
        *conversation[leading:],
    )


def _sole_survivor(refinement: Refinement, on_answer: OnAnswer | None) -> Refined:
    only = refinement.candidates[0]
    if on_answer is not None:
        on_answer(only.text, False)
    return Refined(
        answer=only.text,
        provenance=Provenance(method=Method.SOLE_SURVIVOR, candidate_ids=(only.candidate_id,), answer_model=only.model),
        degradations=(Degradation.SOLE_SURVIVOR,),
    )


def _fallback(
    refinement: Refinement,
    completion: Completion,
    reasons: tuple[Degradation, ...],
    on_answer: OnAnswer | None,
    *,
    block: CandidateBlock,
    prompt: Prompt,
    restart: bool,
) -> Refined:
    best = best_candidate(refinement.candidates)
    if on_answer is not None:
        on_answer(best.text, restart)
    return Refined(
        answer=best.text,
        provenance=Provenance(
            method=Method.FALLBACK,
            candidate_ids=(best.candidate_id,),
            display_order=block.display_order,
            prompt_version=prompt.version,
            answer_model=best.model,
        ),
        calls=(completion.receipt,),
        degradations=reasons,
    )
