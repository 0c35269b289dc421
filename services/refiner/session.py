"""One refinement under way: what all methods share.

    question --prompt with a code of its own--> Answering (attempts, each with a permit) --ok--> read --> value
                                                   |                                               |
                                                   `-- failed: no value                            `-- cannot be used: problem

A judge whose verdict cannot be used, or whose provider rejects a request with a schema, is asked once more, with a new prompt and a new code; see
`Session.verdict`. That a model fails, or the limiter cannot be reached, is never an error here: the candidates are paid for, and one of them can be the answer.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from services.chassis.deadline import Deadline
from services.chassis.errors import DependencyUnavailable
from services.models.answering import Answered, Answering
from services.models.chat import StructuredOutput
from services.models.completion import PROMPT_ECHOED, Attempt, Completion, PlannedCall, never_started
from services.models.conversation import Message, Sampling
from services.models.guard import Guard
from services.models.leading_text import Listener
from services.models.outcomes import Outcome
from services.models.prompting.candidate_block import CLOSE, OPEN, candidate_block, seed_of
from services.models.prompting.fitting import Build, fitted, input_limit, made_aside
from services.models.prompting.layout import conversation_block, task_layout
from services.models.prompting.prompt_file import Prompt, load_prompt
from services.models.provenance import Degradation, Method, Provenance, Verdict
from services.models.receipt import CallReceipt, in_order
from services.models.refinement import OnAnswer, Refined, Refinement, RefinementCandidate, Writer, best_candidate
from services.refiner.bias import BiasRecorder
from services.refiner.verdicts import BadVerdict

RETURN_MARGIN_SECONDS = 0.05
"""Kept back from the models, so that a fallback still reaches the orchestrator in time."""
JUDGE_TEMPERATURE = 0.0
"""Where the request says nothing: a verdict shall be the same when it is asked for again."""

_ECHO = "it repeated the code"

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(Generic[Value]):
    """What came of one question."""

    value: Value | None = None
    truncated: bool = False
    problem: str = ""
    """Why an answer that came cannot be used, in words that hold nothing of it."""
    rejected: bool = False
    """Whether the provider refused the request itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a judge is asked."""

    prompt: Prompt
    judge: Writer
    member_id: str
    shown: tuple[RefinementCandidate, ...]
    """In the order in which the judge sees them."""
    schema: str
    """JSON Schema of the verdict."""


class Voice:
    """Says the answer as it grows; what is said after a restart voids what was said before."""

    def __init__(self, on_answer: OnAnswer | None) -> None:
        self._on_answer = on_answer
        self._said = False
        self._restart = False
        self.listening = on_answer is not None

    def hear(self, text: str) -> None:
        """Say a piece."""
        if self._on_answer is not None:
            self._on_answer(text, self._restart)
        self._said, self._restart = True, False

    def restart(self) -> None:
        """Take back what was said, as soon as there is something to say instead."""
        self._restart = self._said

    def say_whole(self, text: str) -> None:
        """Say the answer in one piece, in place of all that was said."""
        self.restart()
        self.hear(text)


class Session:
    """One refinement under way."""

    def __init__(
        self, refinement: Refinement, deadline: Deadline, *, guard: Guard, bias: BiasRecorder, new_nonce: Callable[[], str], on_answer: OnAnswer | None
    ) -> None:
        self.refinement = refinement
        self.deadline = deadline.minus(RETURN_MARGIN_SECONDS)
        self.seed = seed_of(refinement.run_id) if refinement.shuffle_seed is None else refinement.shuffle_seed
        self.bias = bias
        self.new_nonce = new_nonce
        self.voice = Voice(on_answer)
        self._catalogue = guard.catalogue
        self._run = guard.begin(refinement.tenant, max_cost_micro_usd=refinement.max_cost_micro_usd)
        self._receipts: list[list[CallReceipt]] = []
        """One list for each question, in the order in which they were asked."""

    async def prompt(self, build: Build, texts: Sequence[str], model: str, sampling: Sampling) -> tuple[Message, ...]:
        """Return the prompt with the texts in it, cut so that the model can take it with the longest answer that is allowed."""
        entry = self._catalogue.get(model)
        output_tokens = entry.max_output_tokens if sampling.max_output_tokens is None else sampling.max_output_tokens
        limit = self.refinement.candidate_byte_limit
        characters = sum(len(message.text) for message in self.refinement.messages) + sum(min(len(text), limit) for text in texts)
        return await made_aside(characters, lambda: fitted(build, texts, byte_limit=limit, input_tokens=input_limit(entry.context_tokens, output_tokens)))

    async def write(self, messages: tuple[Message, ...], sampling: Sampling, nonce: str) -> Reply[str]:
        """Have the writer write, heard by whoever listens."""
        writer = self.refinement.writer
        planned = PlannedCall(
            candidate_id="",
            member_id="refiner",
            model=writer.model,
            messages=messages,
            sampling=sampling,
            timeout_seconds=writer.timeout_seconds,
            nonce=nonce,
        )
        return await self._ask(planned, lambda text: text, self.voice if self.voice.listening else None)

    def writer_sampling(self) -> Sampling:
        """Return how the writer's text is sampled: as the caller wants it, but for what is said of the writer itself."""
        refinement, writer = self.refinement, self.refinement.writer
        own = Sampling(temperature=writer.temperature, max_output_tokens=writer.max_output_tokens, response_schema=refinement.response_schema)
        return refinement.sampling.overlaid(own)

    async def verdict(self, question: Question, read: Callable[[str], Value]) -> Value | None:
        """Ask a judge, once more where its verdict cannot be used or its schema is rejected; None where there is no verdict in the end."""
        first = await self._judge(question, read, schema=question.schema)
        if first.problem:
            return (await self._judge(question, read, schema=question.schema, problem=first.problem)).value
        if first.rejected and self._catalogue.get(question.judge.model).structured_output is not StructuredOutput.PROMPT:
            return (await self._judge(question, read, schema="")).value
        return first.value

    async def together(self, asked: Iterable[Coroutine[Any, Any, Value]]) -> list[Value]:
        """Ask several at the same time; return what came of each, in their order."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(question) for question in asked]
        return [task.result() for task in tasks]

    def refined(self, answer: str, provenance: Provenance, *degradations: Degradation) -> Refined:
        """Return what became of the candidates, with all calls that were made for it."""
        calls = in_order(receipt for receipts in self._receipts for receipt in receipts)
        return Refined(answer=answer, provenance=provenance, calls=calls, degradations=(*degradations, *self._run.degradations))

    def picked(
        self,
        candidate: RefinementCandidate,
        method: Method,
        *degradations: Degradation,
        prompt: Prompt | None = None,
        shown: Iterable[RefinementCandidate] = (),
        verdict: Verdict | None = None,
    ) -> Refined:
        """Return a candidate's text as it is."""
        self.voice.say_whole(candidate.text)
        provenance = Provenance(
            method=method,
            candidate_ids=(candidate.candidate_id,),
            display_order=ids(shown),
            prompt_version="" if prompt is None else prompt.version,
            answer_model=candidate.model,
            verdict=verdict,
        )
        return self.refined(candidate.text, provenance, *degradations)

    def sole_survivor(self) -> Refined:
        """Return the only candidate; there is nothing to be asked of anybody."""
        return self.picked(self.refinement.candidates[0], Method.SOLE_SURVIVOR, Degradation.SOLE_SURVIVOR)

    def fallback(self, prompt: Prompt, shown: Sequence[RefinementCandidate]) -> Refined:
        """Return the best candidate by the deterministic rule."""
        best = best_candidate(self.refinement.candidates)
        return self.picked(best, Method.FALLBACK, self.failure(), prompt=prompt, shown=shown)

    def failure(self) -> Degradation:
        """Why there is no better answer, once all that was tried has failed."""
        return Degradation.NO_TIME_TO_REFINE if self.deadline.expired else Degradation.REFINER_FAILED

    async def _judge(self, question: Question, read: Callable[[str], Value], *, schema: str, problem: str = "") -> Reply[Value]:
        judge = question.judge
        nonce = self.new_nonce()
        # Nothing of the caller's: his stop texts would cut a verdict, his seed and temperature are meant for answers.
        sampling = Sampling(
            temperature=JUDGE_TEMPERATURE if judge.temperature is None else judge.temperature, max_output_tokens=judge.max_output_tokens, response_schema=schema
        )
        instructions = question.prompt.filled(open=OPEN, close=CLOSE, nonce=nonce, count=len(question.shown))
        if problem:
            instructions = f"{instructions}\n\n{load_prompt('verdict_repair', 1).filled(problem=problem)}"

        def build(bodies: Sequence[str]) -> tuple[Message, ...]:
            material = (conversation_block(self.refinement.messages, nonce), candidate_block(bodies, nonce))
            return task_layout(instructions, material=material, request="Now answer with the JSON object.")

        planned = PlannedCall(
            candidate_id="",
            member_id=question.member_id,
            model=judge.model,
            messages=await self.prompt(build, [candidate.text for candidate in question.shown], judge.model, sampling),
            sampling=sampling,
            timeout_seconds=judge.timeout_seconds,
            nonce=nonce,
        )
        return await self._ask(planned, read)

    async def _ask(self, planned: PlannedCall, read: Callable[[str], Value], voice: Voice | None = None) -> Reply[Value]:
        """Make the call, repeated as the policy allows, and read the answer."""
        receipts: list[CallReceipt] = []
        self._receipts.append(receipts)
        listener = None if voice is None else Listener(on_text=voice.hear, on_restart=voice.restart)
        try:
            answered = await Answering(self._run, planned, deadline=self.deadline, retry=self.refinement.retry, listener=listener).answer()
        except DependencyUnavailable:
            # The candidates are paid for; that the limiter is away is no reason to throw them away.
            unreached = never_started(Attempt(planned=planned), Outcome.LIMITER_UNAVAILABLE, "limiter_unavailable")
            answered = Answered(completion=unreached, receipts=(unreached.receipt,))
        completion = answered.completion
        reply = _reply(completion, planned.nonce, read)
        if reply.problem:
            # The provider did its part, but there is no answer; the receipt says so.
            void = replace(completion.receipt, outcome=Outcome.EMPTY, reason=PROMPT_ECHOED if reply.problem == _ECHO else "bad_verdict")
            receipts.extend(void if receipt == completion.receipt else receipt for receipt in answered.receipts)
        else:
            receipts.extend(answered.receipts)
        return reply


def _reply(completion: Completion, nonce: str, read: Callable[[str], Value]) -> Reply[Value]:
    if completion.receipt.reason == PROMPT_ECHOED:
        return Reply(problem=_ECHO)
    if not completion.ok:
        return Reply(rejected=completion.receipt.outcome is Outcome.PROVIDER_REJECTED)
    try:
        value = read(completion.text)
    except BadVerdict as refused:
        return Reply(problem=refused.problem)
    # JSON can spell the code in other ways than it is shown.
    return Reply(problem=_ECHO) if nonce in repr(value) else Reply(value=value, truncated=completion.truncated)


def truncation(reply: Reply[Any]) -> tuple[Degradation, ...]:
    """Return why a written answer that was cut short is degraded; nothing for a whole one."""
    return (Degradation.TRUNCATED,) if reply.truncated else ()


def ids(candidates: Iterable[RefinementCandidate]) -> tuple[str, ...]:
    """Return the candidates' ids."""
    return tuple(candidate.candidate_id for candidate in candidates)
