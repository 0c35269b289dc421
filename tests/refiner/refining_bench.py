"""A refiner in memory, on virtual time: the real methods and the real guard over models that answer what they are asked, and a recording limiter."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from services.chassis.deadline import Deadline
from services.chassis.telemetry import Telemetry
from services.models.catalogue import Catalogue, ModelEntry
from services.models.chat import ChatRequest, ChatResult, OnText, StructuredOutput, Timeouts
from services.models.conversation import Message, Role
from services.models.guard import Guard
from services.models.prices import Price
from services.models.refinement import Refined, Refinement, RefinementCandidate, RefineMethod, Writer
from services.models.reporter import OutcomeReporter
from services.models.retry_policy import NO_RETRY
from services.refiner.bias import BiasRecorder
from services.refiner.guarded_refiner import GuardedRefiner
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

QUESTION = (Message(role=Role.USER, text="What is the capital of France?"),)
TWO = (
    RefinementCandidate(candidate_id="left", model="a", text="Paris."),
    RefinementCandidate(candidate_id="right", model="b", text="It is Paris, on the Seine.", weight=2.0),
)
THREE = (*TWO, RefinementCandidate(candidate_id="third", model="c", text="Lyon, as everybody knows."))

Answer = Callable[[ChatRequest], Reply]


def refinement(method: RefineMethod, *candidates: RefinementCandidate, **more: object) -> Refinement:
    """Return a refinement of these candidates, or of three; nothing is retried unless it is said."""
    asked: dict[str, object] = {"run_id": "run-1", "messages": QUESTION, "writer": Writer(model="w"), "retry": NO_RETRY, **more}
    return Refinement(method=method, candidates=candidates or THREE, **asked)  # type: ignore[arg-type]


def position_of(request: ChatRequest, text: str) -> int:
    """Return the number of the draft that is this text, as a judge sees it."""
    prompt = "\n".join(message.text for message in request.messages)
    found = re.search(rf"^<<<DRAFT (\d+) \S+\n{re.escape(text)}\n<<<END", prompt, re.MULTILINE)
    assert found is not None, "the draft is not in the prompt"
    return int(found.group(1))


def choose(text: str) -> Answer:
    """Return a judge that always chooses this text."""
    return lambda request: Reply(text=f'{{"best": {position_of(request, text)}}}')


def rank(*texts: str) -> Answer:
    """Return a judge that ranks these texts in this order; those that it is not shown are left out."""

    def answer(request: ChatRequest) -> Reply:
        shown = [text for text in texts if f"\n{text}\n<<<END" in request.messages[-1].text]
        return Reply(text=f'{{"ranking": {[position_of(request, text) for text in shown]}}}')

    return answer


def in_turn(*answers: Answer | Reply) -> Answer:
    """Return a model that gives one answer after the other, the last of them for ever."""
    turns = count()

    def answer(request: ChatRequest) -> Reply:
        one = answers[min(next(turns), len(answers) - 1)]
        return one if isinstance(one, Reply) else one(request)

    return answer


@dataclass(slots=True, kw_only=True)
class AnsweringChat(ScriptedChat):
    """Models in memory whose replies may depend on what they are asked."""

    answers: Mapping[str, Answer | Reply] = field(default_factory=dict)
    """By the provider's model name."""

    async def complete(self, request: ChatRequest, on_text: OnText | None = None) -> ChatResult:
        """Answer as the script says."""
        answer = self.answers.get(request.provider_model, Reply())
        self.replies = {request.provider_model: answer if isinstance(answer, Reply) else answer(request)}
        # Named, for a slotted dataclass is made anew and leaves a bare super() behind.
        return await ScriptedChat.complete(self, request, on_text)


@dataclass(slots=True, kw_only=True)
class RefiningBench:
    """One refiner with everything it stands on."""

    answers: Mapping[str, Answer | Reply] = field(default_factory=dict)
    permits: RecordingPermits = field(default_factory=RecordingPermits)
    context_tokens: int | None = None
    max_output_tokens: int = 100
    structured_output: StructuredOutput = StructuredOutput.JSON_SCHEMA
    telemetry: Telemetry = field(default_factory=Telemetry.off)
    nonces: list[str] = field(default_factory=list)
    """All codes that were made."""
    chat: AnsweringChat = field(default_factory=AnsweringChat)

    def refine(self, asked: Refinement, *, seconds: float = 30.0, heard: list[tuple[str, bool]] | None = None) -> Refined:
        """Refine, then wait until all reports are in."""

        async def scenario() -> Refined:
            clock = asyncio.get_running_loop().time
            guard = self.guard(clock)
            refiner = GuardedRefiner(guard=guard, bias=BiasRecorder(self.telemetry), new_nonce=self._new_nonce)
            listen = None if heard is None else lambda text, restart: heard.append((text, restart))
            try:
                return await refiner.refine(asked, Deadline.after(seconds, clock=clock), listen)
            finally:
                await guard.reporter.aclose(60.0)

        return run_virtual(scenario())

    def guard(self, clock: Callable[[], float]) -> Guard:
        """Return a guard on this clock."""
        self.chat.answers = self.answers
        return Guard(
            permits=self.permits,
            reporter=OutcomeReporter(self.permits),
            catalogue=Catalogue([self._entry(name) for name in "abcwxyz"]),
            providers={"scripted": self.chat},
            telemetry=Telemetry.off(),
            clock=clock,
            draw=lambda: 0.5,
        )

    @property
    def requests(self) -> list[ChatRequest]:
        """What the models were asked, in order."""
        return self.chat.requests

    def prompts(self) -> list[str]:
        """Return the whole text of each prompt."""
        return ["\n".join(message.text for message in request.messages) for request in self.requests]

    def _new_nonce(self) -> str:
        self.nonces.append(f"n0nce{len(self.nonces)}")
        return self.nonces[-1]

    def _entry(self, name: str) -> ModelEntry:
        return ModelEntry(
            name=name,
            provider="scripted",
            provider_model=name,
            timeouts=Timeouts(total=60.0, first_token=60.0, idle=60.0),
            max_output_tokens=self.max_output_tokens,
            price=Price(input_usd_per_million=1.0, output_usd_per_million=1.0),
            structured_output=self.structured_output,
            context_tokens=self.context_tokens,
        )
