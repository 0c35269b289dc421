"""ANALYSE: what candidates have in common and where they differ."""

import json

import pytest

from services.models.outcomes import Outcome
from services.models.provenance import Degradation, Method
from services.models.refinement import Analysis, RefineMethod
from tests.refiner.refining_bench import RefiningBench, in_turn, refinement
from tests.support.scripted_chat import FAILED, Reply

NOTHING: dict[str, list[str]] = {"consensus": [], "contradictions": [], "partial_coverage": [], "unique_insights": [], "blind_spots": []}


def test_the_analysis_is_all_there_is() -> None:
    """There is no answer, nothing is said, and the analyst is on the bill."""
    bench = RefiningBench(answers={"w": Reply(text=json.dumps({**NOTHING, "contradictions": ["Paris or Lyon"]}))})
    heard: list[tuple[str, bool]] = []
    refined = bench.refine(refinement(RefineMethod.ANALYSE), heard=heard)
    assert (refined.answer, refined.analysis, heard) == ("", Analysis(contradictions=("Paris or Lyon",)), [])
    assert refined.degradations == ()
    assert refined.provenance.prompt_version == "analyse/1"
    assert refined.provenance.candidate_ids == ("left", "right", "third")
    assert sorted(refined.provenance.display_order) == ["left", "right", "third"]
    assert [call.member_id for call in refined.calls] == ["analyst"]


@pytest.mark.parametrize("seconds", [30.0, 0.0])
def test_without_an_analysis_it_says_so(seconds: float) -> None:
    """A failed analyst, or no time for one, leaves none; there is nothing to fall back to."""
    refined = RefiningBench(answers={"w": FAILED}).refine(refinement(RefineMethod.ANALYSE), seconds=seconds)
    assert (refined.answer, refined.analysis, refined.degradations) == ("", None, (Degradation.ANALYSIS_FAILED,))
    assert refined.provenance.method is Method.FALLBACK


def test_the_code_is_found_however_it_is_spelled() -> None:
    """An analysis that repeats the code with JSON escapes is an echo as well; the next one counts."""
    spelled = json.dumps({**NOTHING, "consensus": ["<<<DRAFT 1 n0nce0"]}).replace("n0nce0", "\\u006e0nce0")
    refined = RefiningBench(answers={"w": in_turn(Reply(text=spelled), Reply(text=json.dumps(NOTHING)))}).refine(refinement(RefineMethod.ANALYSE))
    assert refined.analysis == Analysis()
    assert [(call.outcome, call.reason) for call in refined.calls] == [(Outcome.EMPTY, "prompt_echoed"), (Outcome.OK, "")]
