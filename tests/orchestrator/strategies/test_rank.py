"""The strategies rank and rank_then_fuse: judges rank, and the best is passed on, or the best few are fused."""

import pytest

from services.chassis.errors import DependencyUnavailable, InvalidInput, NotFound
from services.models.plan import Member, StrategyOptions
from services.models.provenance import Degradation, Method
from services.models.refinement import Analysis, RefineMethod, Writer
from tests.support.ensembles import Bench, JoiningRefiner, options, plan
from tests.support.scripted_chat import Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

CHAT = {"a": Reply(text="A"), "b": Reply(text="B"), "c": Reply(text="C")}
SEATS = [Member(member_id="a", model="a"), Member(member_id="b", model="b", weight=2.0), Member(member_id="c", model="c")]


def _bench(refiner: JoiningRefiner | None = None) -> Bench:
    return Bench(chat=ScriptedChat(replies=CHAT), refiner=refiner or JoiningRefiner())


def test_the_best_ranked_is_the_answer() -> None:
    """The refiner ranks, with its own model as the only judge, and what it places first is passed on."""
    bench = _bench()
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="rank")))
    assert result.answer.text == "C"
    assert result.answer.provenance.method is Method.RANKED
    assert result.answer.provenance.verdict is not None
    assert result.answer.provenance.verdict.ranking == ("c", "b", "a")
    refinement = bench.refiner.asked[0][0]
    assert (refinement.method, refinement.judges, refinement.writer) == (RefineMethod.RANK, (), Writer(model="w"))
    assert [stage.stage for stage in result.receipt.stages] == ["panel", "ranking"]


def test_judges_are_named() -> None:
    """Named judges rank instead of the refiner; where the refiner is one of them it keeps its own settings, and it is not needed otherwise."""
    bench = _bench()
    given = StrategyOptions(refiner=Writer(model="w", temperature=0.3), parameters={"judges": ["a", "w"]})
    run_virtual(bench.run(plan("a", "b", strategy="rank", options=given)))
    assert bench.refiner.asked[0][0].judges == (Writer(model="a"), Writer(model="w", temperature=0.3))
    bench = _bench()
    run_virtual(bench.run(plan("a", "b", strategy="rank", options=StrategyOptions(parameters={"judges": ["c"]}))))
    assert bench.refiner.asked[0][0].writer == Writer(model="c")


def test_an_unknown_judge_is_refused_before_anything_is_paid() -> None:
    """A judge that is not in the catalogue is the caller's mistake; no member is asked."""
    bench = _bench()
    for strategy in ("rank", "rank_then_fuse"):
        with pytest.raises(NotFound):
            run_virtual(bench.run(plan("a", "b", strategy=strategy, options=options(parameters={"judges": ["nobody"]}))))
    assert bench.permits.requests == []


def test_a_sole_survivor_is_not_ranked() -> None:
    """There is nothing to compare one answer with."""
    for strategy in ("rank", "rank_then_fuse"):
        bench = _bench()
        result = run_virtual(bench.run(plan("a", strategy=strategy)))
        assert result.answer.provenance.method is Method.SOLE_SURVIVOR
        assert bench.refiner.asked == []


@pytest.mark.parametrize(
    ("strategy", "parameters", "field"),
    [
        ("rank", {"judges": []}, "options.parameters.judges"),
        ("rank", {"judges": ["w"] * 9}, "options.parameters.judges"),
        ("rank", {"judges": ["w", ""]}, "options.parameters.judges[1]"),
        ("rank", {"top": 2}, "options.parameters.top"),
        ("rank_then_fuse", {"top": 0}, "options.parameters.top"),
        ("rank_then_fuse", {"analysis": "yes"}, "options.parameters.analysis"),
    ],
)
def test_bad_options_are_named(strategy: str, parameters: dict[str, object], field: str) -> None:
    """Each wrong option is told by its path."""
    with pytest.raises(InvalidInput) as caught:
        run_virtual(Bench().run(plan("a", "b", strategy=strategy, options=options(parameters=parameters))))
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_judge_or_a_writer_is_needed() -> None:
    """Without any there is nobody to rank or to write."""
    for strategy, given in (("rank", StrategyOptions()), ("rank_then_fuse", StrategyOptions(parameters={"judges": ["w"]}))):
        with pytest.raises(InvalidInput) as caught:
            run_virtual(Bench().run(plan("a", "b", strategy=strategy, options=given)))
        assert [violation.field for violation in caught.value.violations] == ["options.refiner"]


def test_the_best_few_are_fused_in_the_order_of_their_ranks() -> None:
    """Two of three are fused, best first, with their ranks, so that a failing writer falls back to the best; the verdict stays in the provenance."""
    bench = _bench()
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="rank_then_fuse", options=options(parameters={"top": 2}))))
    assert result.answer.text == "C + B"
    assert result.answer.provenance.method is Method.FUSED
    assert result.answer.provenance.verdict is not None
    assert result.answer.provenance.verdict.ranking == ("c", "b", "a")
    assert bench.refiner.methods == [RefineMethod.RANK, RefineMethod.FUSE]
    assert [candidate.rank for candidate in bench.refiner.asked[1][0].candidates] == [1, 2]
    assert [stage.stage for stage in result.receipt.stages] == ["panel", "ranking", "refinement"]


def test_a_ranking_leaves_time_for_the_writer() -> None:
    """Of what the panel left the ranking may spend 40 %."""
    bench = _bench()
    run_virtual(bench.run(plan("a", "b", "c", strategy="rank_then_fuse"), seconds=10.1))
    assert bench.refiner.asked[0][1] == pytest.approx(10.1 * 0.4 - 0.1)
    assert bench.refiner.asked[1][1] == pytest.approx(10.0)


def test_one_of_the_best_needs_no_writer() -> None:
    """With top 1 the best ranked passes as it is, and is not too few."""
    bench = _bench()
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="rank_then_fuse", options=options(parameters={"top": 1})), listen=True))
    assert (result.answer.text, result.answer.provenance.method, result.answer.degradations) == ("C", Method.RANKED, ())
    assert bench.refiner.methods == [RefineMethod.RANK]


def test_without_a_ranking_weight_and_order_choose() -> None:
    """The ranking fails: the heaviest and the first are fused, and the run is degraded."""
    refiner = JoiningRefiner(error=DependencyUnavailable("refiner"), fails=frozenset({RefineMethod.RANK}))
    bench = _bench(refiner)
    result = run_virtual(bench.run(plan(members=SEATS, strategy="rank_then_fuse", options=options(parameters={"top": 2}))))
    assert result.answer.text == "B + A"
    assert result.answer.degradations == (Degradation.REFINER_UNAVAILABLE,)
    assert result.answer.provenance.verdict is None
    result = run_virtual(_bench(refiner).run(plan(members=SEATS, strategy="rank_then_fuse", options=options(parameters={"top": 1}))))
    assert (result.answer.text, result.answer.provenance.method) == ("B", Method.FALLBACK)


def test_without_a_writer_the_best_ranked_is_the_answer() -> None:
    """The writing fails after the ranking: rank stands above weight."""
    bench = _bench(JoiningRefiner(error=DependencyUnavailable("refiner"), fails=frozenset({RefineMethod.FUSE})))
    result = run_virtual(bench.run(plan(members=SEATS, strategy="rank_then_fuse")))
    assert result.answer.text == "C"
    assert result.answer.provenance.method is Method.FALLBACK
    assert result.answer.provenance.verdict is not None


def test_the_best_can_be_analysed() -> None:
    """The analysis of the best few reaches the writer and the caller."""
    analysis = Analysis(consensus=("all of it",))
    bench = _bench(JoiningRefiner(analysis=analysis))
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="rank_then_fuse", options=options(parameters={"analysis": True}))))
    assert bench.refiner.methods == [RefineMethod.RANK, RefineMethod.ANALYSE, RefineMethod.FUSE]
    assert bench.refiner.asked[2][0].analysis == analysis
    assert result.answer.analysis == analysis


@pytest.mark.parametrize("strategy", ["rank", "rank_then_fuse"])
def test_judges_that_wrote_everything_are_refused(strategy: str) -> None:
    """Where no judge would be shown two answers of others, nothing is asked; one judge that would is enough."""
    alone = StrategyOptions(refiner=Writer(model="a"))
    named = StrategyOptions(refiner=Writer(model="w"), parameters={"judges": ["a", "b"]})
    for models, given, field in ((("a", "a", "b"), alone, "options.refiner"), (("a", "b"), named, "options.parameters.judges")):
        bench = _bench()
        members = [Member(member_id=f"m{place}", model=model) for place, model in enumerate(models)]
        with pytest.raises(InvalidInput) as caught:
            run_virtual(bench.run(plan(members=members, strategy=strategy, options=given)))
        assert [violation.field for violation in caught.value.violations] == [field]
        assert bench.permits.requests == []
    members = [Member(member_id=f"m{place}", model=model) for place, model in enumerate(("a", "b", "b"))]
    assert run_virtual(_bench().run(plan(members=members, strategy=strategy, options=named))).answer.degradations == ()
