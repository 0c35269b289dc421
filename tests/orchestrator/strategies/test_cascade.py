"""The strategy cascade: cheap first, and the next one only while the score is too low."""

import pytest

from services.chassis.errors import DeadlineSpent, DependencyUnavailable, InvalidInput, NoQuorum
from services.models.outcomes import Outcome
from services.models.permits import Denial, PermitSpec
from services.models.plan import Member, StrategyOptions
from services.models.provenance import Degradation, Method, Verdict
from services.models.refinement import RefineMethod
from services.orchestrator.events import AnswerDelta
from tests.support.ensembles import Bench, JoiningRefiner, options, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

CHAT = {"a": Reply(text="A"), "b": Reply(text="B"), "c": Reply(text="C")}
SAMPLED = [Member(member_id="a", model="a", samples=3), Member(member_id="c", model="c")]


def _bench(*scores: float | None, **replies: Reply | list[Reply]) -> Bench:
    return Bench(chat=ScriptedChat(replies={**CHAT, **replies}), refiner=JoiningRefiner(scores=list(scores)))


def test_a_good_first_answer_is_enough() -> None:
    """The judge scores it at the threshold; the dearer members are not asked."""
    bench = _bench(0.7)
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="cascade"), listen=True))
    assert (result.answer.text, result.answer.provenance.method, result.answer.degradations) == ("A", Method.CASCADED, ())
    assert result.answer.provenance.verdict == Verdict(judges=("w",), ranking=("a",), scores=(0.7,))
    assert [request.provider_model for request in bench.chat.requests] == ["a"]
    assert [candidate.call.outcome for candidate in result.candidates][1:] == [Outcome.NOT_STARTED] * 2
    assert [event.text for event in bench.events if isinstance(event, AnswerDelta)] == ["A"]


def test_a_low_score_escalates_and_the_last_is_taken_unscored() -> None:
    """Two low scores lead to the last member, whose answer stands; both scores are told, best first."""
    bench = _bench(0.2, 0.6)
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="cascade")))
    assert result.answer.text == "C"
    assert bench.refiner.methods == [RefineMethod.SCORE] * 2
    assert result.answer.provenance.verdict == Verdict(judges=("w",), ranking=("b", "a"), scores=(0.6, 0.2))
    assert [stage.stage for stage in result.receipt.stages] == ["panel", "scoring", "panel/2", "scoring", "panel/3"]


def test_the_threshold_can_be_set() -> None:
    """With a lower one the first answer stands."""
    result = run_virtual(_bench(0.2).run(plan("a", "b", strategy="cascade", options=options(parameters={"threshold": 0.2}))))
    assert result.answer.text == "A"


def test_a_judge_that_says_nothing_escalates() -> None:
    """Without a score, for whatever reason, the next member is asked."""
    assert run_virtual(_bench(None).run(plan("a", "b", strategy="cascade"))).answer.text == "B"
    bench = Bench(chat=ScriptedChat(replies=CHAT), refiner=JoiningRefiner(error=DependencyUnavailable("refiner")))
    result = run_virtual(bench.run(plan("a", "b", strategy="cascade")))
    assert (result.answer.text, result.answer.provenance.verdict) == ("B", None)


def test_a_stage_without_an_answer_is_passed_over() -> None:
    """A failed member is followed by the next; nothing is scored."""
    bench = _bench(a=FAILED)
    result = run_virtual(bench.run(plan("a", "b", strategy="cascade", options=options())))
    assert result.answer.text == "B"
    assert bench.refiner.asked == []


def test_where_the_last_fails_the_best_of_the_others_is_taken() -> None:
    """It scored too low, and the run says so."""
    result = run_virtual(_bench(0.2, 0.1, c=FAILED).run(plan("a", "b", "c", strategy="cascade", options=options())))
    assert result.answer.text == "A"
    assert result.answer.degradations == (Degradation.BELOW_THRESHOLD,)
    result = run_virtual(_bench(None, c=FAILED, a=Reply(text="A", truncated=True)).run(plan("a", "c", strategy="cascade", options=options())))
    assert result.answer.degradations == (Degradation.BELOW_THRESHOLD, Degradation.TRUNCATED)


def test_all_failing_is_a_missing_quorum() -> None:
    """No stage brought an answer: each outcome is listed."""
    with pytest.raises(NoQuorum) as caught:
        run_virtual(_bench(a=FAILED, b=FAILED).run(plan("a", "b", strategy="cascade", options=options())))
    assert caught.value.outcomes == {"a": "PROVIDER_FAILED:http_503", "b": "PROVIDER_FAILED:http_503"}


def test_a_hanging_stage_leaves_time_for_the_next() -> None:
    """Each stage but the last may spend 60 % of what is left."""
    bench = _bench(a=Reply(after_seconds=500), b=Reply(text="B", after_seconds=3))
    result = run_virtual(bench.run(plan("a", "b", strategy="cascade", options=options()), seconds=10))
    assert result.answer.text == "B"
    assert result.receipt.latency_seconds == pytest.approx(9.0)
    with pytest.raises(DeadlineSpent):
        run_virtual(_bench(a=Reply(after_seconds=500), b=Reply(after_seconds=500)).run(plan("a", "b", strategy="cascade", options=options()), seconds=10))


def test_samples_that_agree_are_enough() -> None:
    """Scored by agreement the cheap model's samples say the same, so it stands; no judge is asked or needed."""
    bench = _bench(a=[Reply(text="It is Paris"), Reply(text="It is Paris."), Reply(text="it is Paris")])
    result = run_virtual(bench.run(plan(members=SAMPLED, strategy="cascade", options=StrategyOptions(parameters={"score": "agreement"}))))
    assert result.answer.text == "It is Paris"
    assert result.answer.provenance.verdict == Verdict(ranking=("a",), scores=(1.0,))
    assert bench.refiner.asked == []


def test_samples_that_differ_escalate() -> None:
    """What a model says differently each time it does not know."""
    bench = _bench(a=[Reply(text="It is Paris"), Reply(text="Lyon perhaps"), Reply(text="Marseille")])
    result = run_virtual(bench.run(plan(members=SAMPLED, strategy="cascade", options=StrategyOptions(parameters={"score": "agreement"}))))
    assert result.answer.text == "C"


def test_of_several_samples_the_most_agreeing_is_taken() -> None:
    """The one that is most like the others stands for them."""
    bench = _bench(a=[Reply(text="Lyon"), Reply(text="Paris it is"), Reply(text="It is Paris")])
    result = run_virtual(bench.run(plan(members=SAMPLED, strategy="cascade", options=StrategyOptions(parameters={"score": "agreement", "threshold": 0.3}))))
    assert result.answer.text == "Paris it is"


@pytest.mark.parametrize(
    ("members", "given", "fields"),
    [
        (("a",), options(), ["members"]),
        (("a", "b"), StrategyOptions(), ["options.refiner"]),
        (("a", "b"), options(quorum=2), ["options.quorum"]),
        (("a", "b", "c"), options(parameters={"score": "agreement"}), ["members[0].samples", "members[1].samples"]),
        (("a", "b"), options(parameters={"threshold": 0}), ["options.parameters.threshold"]),
        (("a", "b"), options(parameters={"score": "mood"}), ["options.parameters.score"]),
    ],
)
def test_bad_options_are_named(members: tuple[str, ...], given: StrategyOptions, fields: list[str]) -> None:
    """What makes no sense for a cascade is refused by its path."""
    with pytest.raises(InvalidInput) as caught:
        run_virtual(Bench().run(plan(*members, strategy="cascade", options=given)))
    assert [violation.field for violation in caught.value.violations] == fields


def test_a_limiter_that_goes_away_leaves_what_is_there() -> None:
    """The first stage scored too low, and for the second the limiter is away: the first answer is taken, and the run says so; alone, the error stands."""
    bench = _bench(0.2)

    def judge(spec: PermitSpec) -> Denial | None:
        if spec.model == "b":
            raise DependencyUnavailable("limiter")
        return None

    bench.permits = RecordingPermits(judge=judge)
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="cascade", options=options())))
    assert (result.answer.text, result.answer.degradations) == ("A", (Degradation.BELOW_THRESHOLD,))
    with pytest.raises(DependencyUnavailable):
        run_virtual(Bench(permits=RecordingPermits(down=True)).run(plan("a", "b", strategy="cascade")))


def test_how_the_judges_permit_was_decided_is_said() -> None:
    """A score that came under a local share of the limits leaves its mark on the run."""
    bench = _bench(0.9)
    bench.refiner.degradations = (Degradation.LIMITER_DOWN,)
    assert run_virtual(bench.run(plan("a", "b", strategy="cascade"))).answer.degradations == (Degradation.LIMITER_DOWN,)
