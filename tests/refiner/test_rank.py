"""RANK: judges rank, none of them its own; the highest mean normalised Borda count wins."""

from dataclasses import replace

import pytest

from services.chassis.errors import NotFound
from services.models.provenance import Degradation, Method
from services.models.refinement import RefineMethod, Writer
from tests.refiner.refining_bench import THREE, TWO, RefiningBench, position_of, rank, refinement
from tests.support.scripted_chat import FAILED, Reply

A, B, C = (candidate.text for candidate in THREE)
JUDGES = (Writer(model="x"), Writer(model="y"), Writer(model="z"))


def test_the_best_mean_place_is_the_answer() -> None:
    """Three judges at the same time, each under a permit; places become points, the points' mean decides, and the verdict tells all of it."""
    answers = {"x": rank(A, B, C), "y": rank(C, A, B), "z": rank(A, C, B)}
    slow = {model: (lambda request, answer=answer: replace(answer(request), after_seconds=3.0)) for model, answer in answers.items()}
    bench = RefiningBench(answers=slow)
    refined = bench.refine(refinement(RefineMethod.RANK, judges=JUDGES), seconds=5.0)
    assert bench.chat.most_running == 3
    assert len(bench.permits.granted) == 3
    assert refined.answer == A
    provenance, verdict = refined.provenance, refined.provenance.verdict
    assert (provenance.method, provenance.candidate_ids, provenance.answer_model, provenance.prompt_version) == (Method.RANKED, ("left",), "a", "rank/1")
    assert verdict is not None
    assert verdict.judges == ("x", "y", "z")
    assert verdict.ranking == ("left", "third", "right")
    assert verdict.scores == pytest.approx((2.5 / 3, 1.5 / 3, 0.5 / 3))
    assert not verdict.agreed
    assert verdict.chosen_positions == tuple(position_of(request, text) for request, text in zip(bench.requests, (A, C, A), strict=True))
    assert not verdict.judge_also_proposed
    assert refined.degradations == ()
    assert [call.member_id for call in refined.calls] == ["judge", "judge/2", "judge/3"]


def test_each_judge_has_its_own_order_and_code() -> None:
    """The orders are repeatable from the seed, and over some seeds judges see different ones; the first judge's is the one that provenance shows."""
    bench = RefiningBench(answers={"x": rank(A, B, C), "y": rank(A, B, C)})
    differ = 0
    for seed in range(6):
        bench.requests.clear()
        refined = bench.refine(refinement(RefineMethod.RANK, judges=JUDGES[:2], shuffle_seed=seed))
        first, second = ([position_of(request, text) for text in (A, B, C)] for request in bench.requests)
        differ += first != second
        assert [refined.provenance.display_order.index(candidate.candidate_id) + 1 for candidate in THREE] == first
        again = RefiningBench(answers=bench.answers)
        again.refine(refinement(RefineMethod.RANK, judges=JUDGES[:2], shuffle_seed=seed))
        assert [position_of(request, A) for request in again.requests] == [first[0], second[0]]
    assert differ > 0
    assert len(set(bench.nonces)) == len(bench.nonces)


def test_no_judge_sees_what_its_own_model_wrote() -> None:
    """A judge among the proposers ranks the others' candidates; its own keeps the mean of the other judges."""
    bench = RefiningBench(answers={"a": rank(C, B), "x": rank(A, B, C)})
    refined = bench.refine(refinement(RefineMethod.RANK, judges=(Writer(model="a"), Writer(model="x"))))
    assert f"\n{A}\n" not in bench.prompts()[0]
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert dict(zip(verdict.ranking, verdict.scores, strict=True)) == {"left": 1.0, "third": 0.5, "right": 0.25}
    assert verdict.judge_also_proposed
    assert sorted(refined.provenance.display_order) == ["right", "third"]


def test_a_judge_with_nothing_to_compare_abstains() -> None:
    """Of two candidates a judge that wrote one could rank just the other; it is not asked, and does not count."""
    bench = RefiningBench(answers={"a": Reply(text="never heard"), "x": rank(A, B)})
    refined = bench.refine(refinement(RefineMethod.RANK, *TWO, judges=(Writer(model="a"), Writer(model="x"))))
    assert [request.provider_model for request in bench.requests] == ["x"]
    assert refined.provenance.verdict is not None
    assert refined.provenance.verdict.judges == ("x",)
    assert [call.member_id for call in refined.calls] == ["judge/2"]


def test_where_all_abstain_the_rule_decides() -> None:
    """Without a judge that may rank, the heaviest is the answer, degraded; no call is made."""
    bench = RefiningBench()
    refined = bench.refine(refinement(RefineMethod.RANK, *TWO, judges=(Writer(model="a"),)))
    assert (refined.answer, refined.provenance.method, refined.degradations) == (B, Method.FALLBACK, (Degradation.REFINER_FAILED,))
    assert bench.requests == []
    assert refined.provenance.display_order == ()


def test_judges_that_fail_do_not_count() -> None:
    """The others decide; where all fail the rule does."""
    refined = RefiningBench(answers={"x": FAILED, "y": rank(C, B, A), "z": Reply(text="C")}).refine(refinement(RefineMethod.RANK, judges=JUDGES))
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert (refined.answer, verdict.judges, verdict.agreed, len(verdict.chosen_positions)) == (C, ("y",), True, 1)
    # The one whose verdict could not be read was asked once more.
    assert len(refined.calls) == 4
    failed = RefiningBench(answers=dict.fromkeys("xyz", FAILED)).refine(refinement(RefineMethod.RANK, judges=JUDGES))
    assert (failed.provenance.method, failed.provenance.verdict, failed.degradations) == (Method.FALLBACK, None, (Degradation.REFINER_FAILED,))
    assert len(failed.provenance.display_order) == 3


def test_what_nobody_ranked_is_last_without_points() -> None:
    """The only judge that counts wrote one of the candidates; that one stands behind the others, and is no part of the correlation."""
    refined = RefiningBench(answers={"c": rank(A, B), "x": FAILED}).refine(refinement(RefineMethod.RANK, judges=(Writer(model="c"), Writer(model="x"))))
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert (verdict.ranking, verdict.scores) == (("left", "right", "third"), (1.0, 0.0, 0.0))
    assert verdict.length_correlation is None


def test_a_tie_is_broken_by_weight() -> None:
    """Two judges of opposite opinion leave it to the deterministic rule, and did not agree."""
    bench = RefiningBench(answers={"x": rank(A, B), "y": rank(B, A)})
    refined = bench.refine(refinement(RefineMethod.RANK, *TWO, judges=JUDGES[:2]))
    assert refined.answer == B
    assert refined.provenance.verdict is not None
    assert not refined.provenance.verdict.agreed


def test_without_judges_the_writer_ranks() -> None:
    """It is the one judge; what it puts first is the answer, and the correlation of length with place is told."""
    refined = RefiningBench(answers={"w": rank(C, B, A)}).refine(refinement(RefineMethod.RANK))
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert (refined.answer, verdict.judges, verdict.agreed, verdict.scores) == (C, ("w",), True, (1.0, 0.5, 0.0))
    assert verdict.length_correlation == pytest.approx(0.5)


def test_one_candidate_is_not_ranked() -> None:
    """It is returned as it is, said so."""
    refined = RefiningBench().refine(refinement(RefineMethod.RANK, TWO[0]))
    assert (refined.provenance.method, refined.degradations, refined.calls) == (Method.SOLE_SURVIVOR, (Degradation.SOLE_SURVIVOR,), ())


def test_an_unknown_judge_is_refused() -> None:
    """A judge that is not in the catalogue is the caller's mistake; a writer that nobody asks is none."""
    with pytest.raises(NotFound):
        RefiningBench().refine(refinement(RefineMethod.RANK, judges=(Writer(model="x"), Writer(model="nobody"))))
    assert RefiningBench(answers={"x": rank(A, B, C)}).refine(refinement(RefineMethod.RANK, judges=JUDGES[:1], writer=Writer(model="nobody"))).answer == A
