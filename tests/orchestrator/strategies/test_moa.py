"""The strategy moa: layers of proposers who see the layer before, then a writer."""

import pytest

from services.chassis.errors import DependencyUnavailable, InvalidInput, NoQuorum
from services.models.conversation import Role
from services.models.outcomes import Outcome
from services.models.plan import Member, StrategyOptions
from services.models.provenance import Degradation
from services.models.refinement import Analysis, RefineMethod
from services.orchestrator.events import CandidateStarted, RunStarted
from tests.support.ensembles import QUESTION, Bench, JoiningRefiner, options, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

TWICE: dict[str, Reply | list[Reply]] = {"a": [Reply(text="A1"), Reply(text="A2")], "b": [Reply(text="B1"), Reply(text="B2")]}


def _bench(**replies: Reply | list[Reply]) -> Bench:
    fresh = {name: list(script) for name, script in TWICE.items() if isinstance(script, list)}
    return Bench(chat=ScriptedChat(replies={**fresh, **replies}))


def test_the_second_layer_sees_the_first() -> None:
    """Each proposer is shown both first answers, as data before the question, and the writer gets the second ones."""
    bench = _bench()
    result = run_virtual(bench.run(plan("a", "b", strategy="moa"), listen=True))
    assert result.answer.text == "A2 + B2"
    assert [candidate.candidate_id for candidate in result.candidates] == ["a", "b", "a@2", "b@2"]
    for request in bench.chat.requests[2:]:
        assert request.messages[-1] == QUESTION[0]
        shown = "".join(message.text for message in request.messages if message.role is Role.USER)
        assert "A1" in shown
        assert "B1" in shown
    assert [stage.stage for stage in result.receipt.stages] == ["panel", "panel/2", "refinement"]
    started = next(event for event in bench.events if isinstance(event, RunStarted))
    assert started.candidate_ids == ("a", "b")
    assert [event.candidate_id for event in bench.events if isinstance(event, CandidateStarted)] == ["a", "b", "a@2", "b@2"]
    assert [len(request.specs) for request in bench.permits.requests] == [2, 2]


def test_each_prompt_has_a_code_of_its_own() -> None:
    """No two proposers share the code in their delimiters, and a persona stays in front."""
    bench = _bench()
    members = [Member(member_id="a", model="a", persona="Be brief."), Member(member_id="b", model="b")]
    run_virtual(bench.run(plan(members=members, strategy="moa")))
    first, second = bench.chat.requests[2:]
    assert "Be brief." in [message.text for message in first.messages]
    frames = [next(message.text for message in request.messages if "A1" in message.text) for request in (first, second)]
    assert frames[0].splitlines()[2] != frames[1].splitlines()[2]


def test_an_echo_of_the_frame_is_no_answer() -> None:
    """A proposer that repeats the code around the drafts has not answered; the layer is short of its quorum, so the one before it is fused."""

    class Echoing(ScriptedChat):
        async def complete(self, request, on_text=None):  # type: ignore[no-untyped-def]
            result = await ScriptedChat.complete(self, request, on_text)
            frame = next((message.text for message in request.messages if "<<<DRAFT" in message.text and message.role is Role.USER), "")
            code = frame.rsplit(" ", 1)[-1].strip()
            from dataclasses import replace  # noqa: PLC0415

            return replace(result, text=f"{result.text} {code}") if code else result

    bench = Bench(chat=Echoing())
    result = run_virtual(bench.run(plan("a", "b", strategy="moa", options=options())))
    assert [candidate.call.reason for candidate in result.candidates[2:]] == ["prompt_echoed"] * 2
    assert result.answer.degradations == (Degradation.LAYER_FAILED,)


def test_a_failed_layer_is_passed_over() -> None:
    """The second layer fails: the writer works on the first, and the run says so."""
    bench = _bench(a=[Reply(text="A1"), FAILED], b=[Reply(text="B1"), FAILED])
    result = run_virtual(bench.run(plan("a", "b", strategy="moa", options=options())))
    assert result.answer.text == "A1 + B1"
    assert result.answer.degradations == (Degradation.LAYER_FAILED,)
    assert result.receipt.agreement == 0.0
    assert [candidate.call.outcome for candidate in result.candidates] == [Outcome.OK, Outcome.OK, Outcome.PROVIDER_FAILED, Outcome.PROVIDER_FAILED]


def test_a_failed_first_layer_is_the_end() -> None:
    """There is nothing to go on with."""
    with pytest.raises(NoQuorum):
        run_virtual(_bench(a=FAILED, b=FAILED).run(plan("a", "b", strategy="moa", options=options())))
    bench = _bench()
    bench.permits = RecordingPermits(down=True)
    with pytest.raises(DependencyUnavailable):
        run_virtual(bench.run(plan("a", "b", strategy="moa")))


def test_layers_share_the_panels_time() -> None:
    """Of ten seconds the panel has six, each of three layers two; what one does not use is the others'."""
    hang = Reply(after_seconds=500)
    bench = _bench(a=Reply(text="A"), b=Reply(text="B"), c=hang)
    given = options(parameters={"layers": 3}, quorum=2, straggler_grace_seconds=100.0)
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="moa", options=given), seconds=10))
    assert [stage.latency_seconds for stage in result.receipt.stages][:3] == pytest.approx([2.0, 2.0, 2.0])


def test_one_layer_is_a_fusion() -> None:
    """With one layer nobody sees anybody."""
    bench = _bench()
    result = run_virtual(bench.run(plan("a", "b", strategy="moa", options=options(parameters={"layers": 1, "analysis": True}))))
    assert result.answer.text == "A1 + B1"
    assert bench.refiner.methods == [RefineMethod.ANALYSE, RefineMethod.FUSE]


def test_the_last_layer_can_be_analysed() -> None:
    """The analysis reaches writer and caller."""
    bench = _bench()
    bench.refiner = JoiningRefiner(analysis=Analysis(consensus=("x",)))
    result = run_virtual(bench.run(plan("a", "b", strategy="moa", options=options(parameters={"analysis": True}))))
    assert [candidate.candidate_id for candidate in bench.refiner.asked[0][0].candidates] == ["a@2", "b@2"]
    assert result.answer.analysis == Analysis(consensus=("x",))


def test_a_seed_fixes_what_each_sees() -> None:
    """The same seed shows the same order for any run; without one the run decides."""

    def orders(given: StrategyOptions) -> str:
        bench = _bench()
        run_virtual(bench.run(plan("a", "b", strategy="moa", options=given)))
        shown = next(message.text for message in bench.chat.requests[2].messages if "A1" in message.text)
        return "AB" if shown.index("A1") < shown.index("B1") else "BA"

    assert len({orders(options(shuffle_seed=7)) for _ in range(3)}) == 1
    assert {orders(options(shuffle_seed=seed)) for seed in range(12)} == {"AB", "BA"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (StrategyOptions(), "options.refiner"),
        (options(parameters={"layers": 0}), "options.parameters.layers"),
        (options(parameters={"layers": 5}), "options.parameters.layers"),
        (options(parameters={"layers": 2.5}), "options.parameters.layers"),
    ],
)
def test_bad_options_are_named(given: StrategyOptions, field: str) -> None:
    """A missing writer and a number of layers that is none are refused."""
    with pytest.raises(InvalidInput) as caught:
        run_virtual(Bench().run(plan("a", "b", strategy="moa", options=given)))
    assert [violation.field for violation in caught.value.violations] == [field]


def test_one_proposer_alone_is_not_too_few() -> None:
    """A panel of one that answers in each layer has nothing missing."""
    result = run_virtual(_bench().run(plan("a", strategy="moa")))
    assert (result.answer.text, result.answer.degradations) == ("A2", ())
