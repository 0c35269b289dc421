"""The strategy best_of_n: a judge picks one answer, which is passed on as it is."""

import pytest

from services.chassis.errors import DeadlineSpent, InvalidInput, NoQuorum
from services.models.plan import Member, StrategyOptions
from services.models.provenance import Degradation, Method
from services.models.refinement import RefineMethod
from services.orchestrator.events import AnswerDelta, RefinementStarted
from tests.support.ensembles import Bench, JoiningRefiner, options, plan
from tests.support.scripted_chat import FAILED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

CHAT = {"a": Reply(text="A"), "b": Reply(text="B"), "c": Reply(text="C")}


def test_the_judges_pick_is_the_answer() -> None:
    """The refiner is asked to judge once, with one pass, and its pick is heard as a whole."""
    bench = Bench(chat=ScriptedChat(replies=CHAT))
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="best_of_n"), listen=True))
    assert result.answer.text == "C"
    assert result.answer.provenance.method is Method.JUDGED
    refinement = bench.refiner.asked[0][0]
    assert (refinement.method, refinement.passes) == (RefineMethod.JUDGE, 1)
    assert [event.text for event in bench.events if isinstance(event, AnswerDelta)] == ["C"]
    assert [event.stage for event in bench.events if isinstance(event, RefinementStarted)] == ["judgement"]
    assert [stage.stage for stage in result.receipt.stages] == ["panel", "judgement"]


def test_a_pick_that_was_cut_short_says_so() -> None:
    """The judge's pick, and the rule's, are degraded where a cap had cut them; a cut candidate that is not picked is none of the answer's business."""
    cut = {"a": Reply(text="A", truncated=True), "b": Reply(text="B"), "c": Reply(text="C", truncated=True)}
    result = run_virtual(Bench(chat=ScriptedChat(replies=cut)).run(plan("a", "b", "c", strategy="best_of_n")))
    assert (result.answer.text, result.answer.degradations) == ("C", (Degradation.TRUNCATED,))
    bench = Bench(chat=ScriptedChat(replies=cut), refiner=JoiningRefiner(error=DeadlineSpent("the refiner")))
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="best_of_n")))
    assert result.answer.degradations == (Degradation.NO_TIME_TO_REFINE, Degradation.TRUNCATED)
    result = run_virtual(Bench(chat=ScriptedChat(replies={**cut, "c": Reply(text="C")})).run(plan("a", "b", "c", strategy="best_of_n")))
    assert result.answer.degradations == ()


def test_two_passes_are_passed_on() -> None:
    """The option reaches the refiner."""
    bench = Bench(chat=ScriptedChat(replies=CHAT))
    run_virtual(bench.run(plan("a", "b", strategy="best_of_n", options=options(parameters={"passes": 2}))))
    assert bench.refiner.asked[0][0].passes == 2


def test_one_good_answer_is_enough() -> None:
    """By default the quorum is one; a sole survivor needs no judge."""
    bench = Bench(chat=ScriptedChat(replies={"a": FAILED, "b": FAILED, "c": Reply(text="C")}))
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="best_of_n", options=options())))
    assert result.answer.text == "C"
    assert result.answer.degradations == (Degradation.SOLE_SURVIVOR,)
    assert bench.refiner.asked == []


def test_a_quorum_can_be_asked_for() -> None:
    """With a quorum of two, one survivor is too few."""
    bench = Bench(chat=ScriptedChat(replies={"a": FAILED, "b": FAILED, "c": Reply(text="C")}))
    with pytest.raises(NoQuorum):
        run_virtual(bench.run(plan("a", "b", "c", strategy="best_of_n", options=options(quorum=2))))


def test_without_a_judge_the_rule_decides() -> None:
    """A refiner that ran out of time leaves the heaviest candidate, degraded."""
    bench = Bench(chat=ScriptedChat(replies=CHAT), refiner=JoiningRefiner(error=DeadlineSpent("the refiner")))
    members = [Member(member_id="a", model="a"), Member(member_id="b", model="b", weight=2.0), Member(member_id="c", model="c")]
    result = run_virtual(bench.run(plan(members=members, strategy="best_of_n")))
    assert result.answer.text == "B"
    assert result.answer.provenance.method is Method.FALLBACK
    assert result.answer.degradations == (Degradation.NO_TIME_TO_REFINE,)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (StrategyOptions(), "options.refiner"),
        (options(parameters={"passes": 3}), "options.parameters.passes"),
        (options(parameters={"passes": True}), "options.parameters.passes"),
        (options(parameters={"pass": 2}), "options.parameters.pass"),
    ],
)
def test_bad_options_are_named(given: StrategyOptions, field: str) -> None:
    """A missing judge, a number out of range, a wrong type and an unknown name are refused before anything is asked."""
    bench = Bench()
    with pytest.raises(InvalidInput) as caught:
        run_virtual(bench.run(plan("a", "b", strategy="best_of_n", options=given)))
    assert [violation.field for violation in caught.value.violations] == [field]
    assert bench.permits.requests == []
