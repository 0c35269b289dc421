"""SCORE: a judge scores the one candidate."""

import pytest

from services.models.provenance import Degradation, Method
from services.models.refinement import RefineMethod, Writer
from tests.refiner.refining_bench import TWO, RefiningBench, refinement
from tests.support.scripted_chat import FAILED, Reply


@pytest.mark.parametrize(("points", "score"), [(0, 0.0), (7, 0.7), (10, 1.0)])
def test_the_score_is_a_share_of_ten(points: int, score: float) -> None:
    """The candidate passes on as it is, with its score."""
    bench = RefiningBench(answers={"w": Reply(text=f'{{"score": {points}}}')})
    refined = bench.refine(refinement(RefineMethod.SCORE, TWO[0]))
    assert (refined.answer, refined.score, refined.degradations) == ("Paris.", score, ())
    provenance, verdict = refined.provenance, refined.provenance.verdict
    assert (provenance.method, provenance.candidate_ids, provenance.answer_model, provenance.prompt_version) == (Method.CASCADED, ("left",), "a", "score/1")
    assert verdict is not None
    assert (verdict.judges, verdict.ranking, verdict.scores, verdict.chosen_positions) == (("w",), ("left",), (score,), ())
    assert [call.member_id for call in refined.calls] == ["scorer"]


def test_without_a_score_the_candidate_passes_on() -> None:
    """A judge that fails leaves no score, degraded; nobody has judged."""
    refined = RefiningBench(answers={"w": FAILED}).refine(refinement(RefineMethod.SCORE, TWO[0]))
    assert (refined.answer, refined.score, refined.degradations) == ("Paris.", None, (Degradation.REFINER_FAILED,))
    assert (refined.provenance.method, refined.provenance.verdict) == (Method.CASCADED, None)


def test_no_time_for_a_score_says_so() -> None:
    """With the deadline over nobody is asked."""
    bench = RefiningBench()
    assert bench.refine(refinement(RefineMethod.SCORE, TWO[0]), seconds=0.0).degradations == (Degradation.NO_TIME_TO_REFINE,)
    assert bench.requests == []


def test_a_scorer_that_wrote_the_candidate_is_named() -> None:
    """The verdict says that it scored its own model's text."""
    refined = RefiningBench(answers={"a": Reply(text='{"score": 9}')}).refine(refinement(RefineMethod.SCORE, TWO[0], writer=Writer(model="a")))
    assert refined.provenance.verdict is not None
    assert refined.provenance.verdict.judge_also_proposed
