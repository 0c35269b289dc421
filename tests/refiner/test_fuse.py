"""The refiner: one answer by a writer, with a deterministic fallback."""

import asyncio
from dataclasses import replace

import pytest

from services.chassis.deadline import Deadline
from services.chassis.errors import NotFound
from services.models.conversation import Message, Role, Sampling
from services.models.outcomes import Outcome
from services.models.permits import Denial, DenialReason
from services.models.provenance import Degradation, Method
from services.models.refinement import Refined, Refinement, RefinementCandidate, Writer
from services.refiner.fuse import Fuser
from tests.support.degraded_permits import DegradedPermits
from tests.support.ensembles import QUESTION, Bench
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

TWO = (
    RefinementCandidate(candidate_id="left", model="a", text="Paris."),
    RefinementCandidate(candidate_id="right", model="b", text="It is Paris, on the Seine.", weight=2.0),
)
REFINEMENT = Refinement(run_id="run-1", messages=QUESTION, candidates=TWO, writer=Writer(model="w", temperature=0.2))


def _refine(bench: Bench, refinement: Refinement = REFINEMENT, *, seconds: float = 30.0, heard: list[tuple[str, bool]] | None = None) -> Refined:
    async def scenario() -> Refined:
        guard = bench.guard()
        loop = asyncio.get_running_loop()
        fuser = Fuser(guard=guard, new_nonce=lambda: "n0nce", clock=loop.time)
        listen = None if heard is None else lambda text, restart: heard.append((text, restart))
        try:
            return await fuser.refine(refinement, Deadline.after(seconds, clock=loop.time), listen)
        finally:
            await guard.reporter.aclose()

    return run_virtual(scenario())


def test_the_writer_sees_instructions_conversation_and_drafts_as_data() -> None:
    """Ours first, then one user message with the anonymous drafts between delimiters with this prompt's code, then the conversation untouched."""
    bench = Bench()
    refined = _refine(bench)
    (request,) = bench.chat.requests
    roles = [message.role for message in request.messages]
    assert roles == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    assert "n0nce" in request.messages[0].text
    assert request.messages[-1] == QUESTION[0]
    drafts = request.messages[1].text
    assert drafts.count("n0nce") == 4
    assert "Paris." in drafts
    assert "left" not in drafts
    assert request.sampling.temperature == 0.2
    assert refined.answer == "an answer"
    assert refined.provenance.method is Method.FUSED
    assert sorted(refined.provenance.display_order) == ["left", "right"]
    assert refined.provenance.candidate_ids == ("left", "right")
    assert refined.provenance.prompt_version == "fuse/1"
    assert [call.member_id for call in refined.calls] == ["refiner"]


def test_each_prompt_has_a_code_of_its_own() -> None:
    """Two refinements of the same run do not share their delimiters' code."""

    async def scenario(bench: Bench) -> None:
        fuser = Fuser(guard=bench.guard(), clock=asyncio.get_running_loop().time)
        for _ in range(2):
            await fuser.refine(REFINEMENT, Deadline.after(30, clock=asyncio.get_running_loop().time))

    bench = Bench()
    run_virtual(scenario(bench))
    first, second = (request.messages[1].text for request in bench.chat.requests)
    assert first != second


def test_a_seed_fixes_the_order() -> None:
    """The same seed shows the same order for any run; without one the run's id decides."""
    orders = {_refine(Bench(), replace(REFINEMENT, run_id=f"run-{run}", shuffle_seed=7)).provenance.display_order for run in range(8)}
    assert len(orders) == 1
    orders = {_refine(Bench(), replace(REFINEMENT, run_id=f"run-{run}")).provenance.display_order for run in range(8)}
    assert len(orders) == 2


def test_one_candidate_passes_unrefined() -> None:
    """A sole survivor is the answer as it is; no model is asked."""
    bench = Bench()
    heard: list[tuple[str, bool]] = []
    refined = _refine(bench, replace(REFINEMENT, candidates=TWO[:1]), heard=heard)
    assert refined.answer == "Paris."
    assert refined.provenance.method is Method.SOLE_SURVIVOR
    assert refined.degradations == (Degradation.SOLE_SURVIVOR,)
    assert heard == [("Paris.", False)]
    assert bench.chat.requests == []
    assert _refine(bench, replace(REFINEMENT, candidates=TWO[:1])).answer == "Paris."


def test_a_failed_writer_falls_back_to_the_heaviest() -> None:
    """The heaviest candidate is the answer, degraded; the failed call is on the bill."""
    refined = _refine(Bench(chat=ScriptedChat(replies={"w": FAILED})))
    assert refined.answer == TWO[1].text
    assert refined.provenance.method is Method.FALLBACK
    assert refined.degradations == (Degradation.REFINER_FAILED,)
    assert [call.outcome for call in refined.calls] == [Outcome.PROVIDER_FAILED]


@pytest.mark.parametrize(("local", "reason"), [(False, Degradation.LIMITER_STORE_DOWN), (True, Degradation.LIMITER_DOWN)])
def test_how_the_writers_permit_was_decided_is_said(local: bool, reason: Degradation) -> None:
    """Whether the writer answers or not, a permit that came from a share of the limits is a reason of its own."""
    assert _refine(Bench(permits=DegradedPermits(local=local))).degradations == (reason,)
    failing = Bench(permits=DegradedPermits(local=local), chat=ScriptedChat(replies={"w": FAILED}))
    assert _refine(failing).degradations == (Degradation.REFINER_FAILED, reason)


def test_a_writer_that_fails_half_way_voids_what_it_said() -> None:
    """What had been streamed is void: the fallback restarts the answer."""
    heard: list[tuple[str, bool]] = []
    bench = Bench(chat=ScriptedChat(replies={"w": Reply(text="half of it", outcome=Outcome.PROVIDER_FAILED)}))
    _refine(bench, heard=heard)
    assert heard == [("half ", False), ("of it", False), (TWO[1].text, True)]


def test_a_writer_out_of_time_falls_back_in_time() -> None:
    """A hanging writer is cut off early enough for the fallback to arrive before the deadline."""
    refined = _refine(Bench(chat=ScriptedChat(replies={"w": Reply(after_seconds=500)})), seconds=5)
    assert refined.degradations == (Degradation.NO_TIME_TO_REFINE,)
    assert refined.calls[0].latency_seconds == pytest.approx(4.95)


def test_no_time_at_all_asks_no_writer() -> None:
    """With the deadline over the fallback comes at once."""
    bench = Bench()
    assert _refine(bench, seconds=0.0).degradations == (Degradation.NO_TIME_TO_REFINE,)
    assert bench.chat.requests == []


def test_a_denied_writer_falls_back() -> None:
    """Without a permit for the writer the paid candidates are not thrown away."""
    permits = RecordingPermits(judge=lambda spec: Denial(model=spec.model, reason=DenialReason.CONCURRENCY, retry_after_seconds=1.0))
    refined = _refine(Bench(permits=permits))
    assert refined.degradations == (Degradation.REFINER_FAILED,)
    assert refined.calls[0].reason == "denied_concurrency"


def test_without_a_limiter_falls_back() -> None:
    """A limiter that is away costs the refinement, not the answer."""
    refined = _refine(Bench(permits=RecordingPermits(down=True)))
    assert refined.answer == TWO[1].text
    assert refined.calls[0].outcome is Outcome.LIMITER_UNAVAILABLE


def test_a_truncated_answer_says_so() -> None:
    """An answer that the token cap cut short is degraded."""
    refined = _refine(Bench(chat=ScriptedChat(replies={"w": Reply(truncated=True)})))
    assert refined.degradations == (Degradation.TRUNCATED,)


def test_an_unknown_writer_is_refused() -> None:
    """A writer that is not in the catalogue is the caller's mistake, not a degradation."""
    with pytest.raises(NotFound):
        _refine(Bench(), replace(REFINEMENT, writer=Writer(model="nobody")))


def test_the_callers_sampling_holds_where_the_writer_says_nothing() -> None:
    """Stop texts and caps of the request reach the writer; the writer's own stand above them."""
    bench = Bench()
    sampling = Sampling(temperature=1.5, max_output_tokens=33, stop=("END",), seed=4)
    _refine(bench, replace(REFINEMENT, sampling=sampling, messages=(Message(role=Role.SYSTEM, text="s"), *QUESTION)))
    assert bench.chat.requests[0].sampling == replace(sampling, temperature=0.2)
    # The caller's own instructions stay in front of the drafts.
    assert [message.role for message in bench.chat.requests[0].messages] == [Role.SYSTEM, Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]


def test_an_echo_of_the_frame_is_no_answer() -> None:
    """A writer that repeats the delimiters, code and all, has not written a reply; the fallback takes over."""
    refined = _refine(Bench(chat=ScriptedChat(replies={"w": Reply(text="<<<DRAFT 3 n0nce\nParis.")})))
    assert refined.provenance.method is Method.FALLBACK
    assert refined.degradations == (Degradation.REFINER_FAILED,)
    assert (refined.calls[0].outcome, refined.calls[0].reason) == (Outcome.EMPTY, "prompt_echoed")
    assert refined.calls[0].usage.output_tokens > 0
