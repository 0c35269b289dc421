"""What judges prefer is measured, and never what they read."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis.telemetry import Telemetry
from services.models.refinement import RefinementCandidate, RefineMethod, Writer
from services.refiner.bias import BiasRecorder, Judgement, Rating, also_proposed, length_correlation
from tests.refiner.refining_bench import THREE, RefiningBench, choose, position_of, rank, refinement
from tests.support.scripted_chat import FAILED, Reply

A, B, C = (candidate.text for candidate in THREE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Telemetry that is kept in memory."""

    telemetry: Telemetry
    spans: InMemorySpanExporter
    metrics: InMemoryMetricReader

    def points(self, name: str) -> list[Any]:
        """Return the data points of a metric."""
        data = self.metrics.get_metrics_data()
        found = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics] if data else []
        return [point for metric in found if metric.name == name for point in metric.data.data_points]

    def events(self) -> list[dict[str, Any]]:
        """Return the attributes of the evaluations on all spans."""
        return [dict(event.attributes or {}) for span in self.spans.get_finished_spans() for event in span.events if event.name == "gen_ai.evaluation.result"]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Record in memory."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer=tracers.get_tracer("test"), meter=meters.get_meter("test"), enabled=True, capture_content=False, flush=lambda: None)
    yield Recorded(telemetry=telemetry, spans=exporter, metrics=reader)
    tracers.shutdown()
    meters.shutdown()


def _rating(length: int, score: float) -> Rating:
    return Rating(candidate=RefinementCandidate(candidate_id="x", model="x", text="x" * length), score=score)


def test_a_choice_is_counted_by_place_and_models(recorded: Recorded) -> None:
    """The chosen position, who chose whom, and one event for each candidate that was judged."""
    bench = RefiningBench(answers={"w": choose(B)}, telemetry=recorded.telemetry)
    with recorded.telemetry.tracer.start_as_current_span("refine"):
        refined = bench.refine(refinement(RefineMethod.JUDGE))
    places = {candidate.text: position_of(bench.requests[0], candidate.text) for candidate in THREE}
    (position,) = recorded.points("ensemble.judge.display_index")
    assert (position.count, position.sum, dict(position.attributes)) == (1, places[B], {"ensemble.judge.model": "w"})
    (chosen,) = recorded.points("ensemble.judge.chosen")
    assert (chosen.value, dict(chosen.attributes)) == (1, {"ensemble.judge.model": "w", "ensemble.candidate.model": "b"})
    (correlation,) = recorded.points("ensemble.judge.length_correlation")
    assert refined.provenance.verdict is not None
    assert refined.provenance.verdict.length_correlation is not None
    assert correlation.sum == pytest.approx(1 + refined.provenance.verdict.length_correlation)
    assert dict(correlation.attributes) == {"gen_ai.evaluation.name": "judge"}
    events = {event["ensemble.candidate.display_index"]: event for event in recorded.events()}
    assert len(events) == 3
    assert events[places[B]] == {
        "gen_ai.evaluation.name": "judge",
        "gen_ai.evaluation.score.value": 1.0,
        "ensemble.candidate.display_index": places[B],
        "ensemble.candidate.rank": 1,
        "ensemble.candidate.length": len(B),
    }
    assert events[places[A]] == {
        "gen_ai.evaluation.name": "judge",
        "gen_ai.evaluation.score.value": 0.0,
        "ensemble.candidate.display_index": places[A],
        "ensemble.candidate.length": len(A),
    }


def test_both_passes_are_judgements(recorded: Recorded) -> None:
    """A judge that always takes the first place is seen to do so."""
    RefiningBench(answers={"w": Reply(text='{"best": 1}')}, telemetry=recorded.telemetry).refine(refinement(RefineMethod.CONSISTENT, passes=2))
    (position,) = recorded.points("ensemble.judge.display_index")
    assert (position.count, position.sum) == (2, 2)
    assert sum(point.value for point in recorded.points("ensemble.judge.chosen")) == 2


def test_each_judge_of_a_ranking_is_a_judgement(recorded: Recorded) -> None:
    """Judges are told apart; candidates have the score of all of them together, and one that nobody ranked has none."""
    judges = (Writer(model="c"), Writer(model="x"))
    bench = RefiningBench(answers={"c": rank(A, B), "x": FAILED}, telemetry=recorded.telemetry)
    with recorded.telemetry.tracer.start_as_current_span("refine"):
        bench.refine(refinement(RefineMethod.RANK, judges=judges))
    assert [dict(point.attributes) for point in recorded.points("ensemble.judge.chosen")] == [{"ensemble.judge.model": "c", "ensemble.candidate.model": "a"}]
    scores = {event["ensemble.candidate.length"]: event["gen_ai.evaluation.score.value"] for event in recorded.events()}
    assert scores == {len(A): 1.0, len(B): 0.0}
    assert recorded.points("ensemble.judge.length_correlation") == []


def test_a_candidate_that_the_first_judge_did_not_see_has_no_place(recorded: Recorded) -> None:
    """It was judged by others, so it has a score and a rank."""
    bench = RefiningBench(answers={"a": rank(B, C), "x": rank(A, B, C)}, telemetry=recorded.telemetry)
    with recorded.telemetry.tracer.start_as_current_span("refine"):
        bench.refine(refinement(RefineMethod.RANK, judges=(Writer(model="a"), Writer(model="x"))))
    (unseen,) = [event for event in recorded.events() if event["ensemble.candidate.length"] == len(A)]
    assert "ensemble.candidate.display_index" not in unseen
    assert (unseen["gen_ai.evaluation.score.value"], unseen["ensemble.candidate.rank"]) == (1.0, 1)


def test_a_score_is_an_evaluation_and_no_choice(recorded: Recorded) -> None:
    """There was nothing to choose from."""
    with recorded.telemetry.tracer.start_as_current_span("refine"):
        RefiningBench(answers={"w": Reply(text='{"score": 7}')}, telemetry=recorded.telemetry).refine(refinement(RefineMethod.SCORE, THREE[0]))
    assert [event["gen_ai.evaluation.score.value"] for event in recorded.events()] == [0.7]
    assert recorded.points("ensemble.judge.display_index") == []


def test_no_text_is_recorded(recorded: Recorded) -> None:
    """Neither candidates nor their ids stand in any attribute."""
    with recorded.telemetry.tracer.start_as_current_span("refine"):
        RefiningBench(answers={"w": rank(A, B, C)}, telemetry=recorded.telemetry).refine(refinement(RefineMethod.RANK))
    told = repr([recorded.events(), recorded.points("ensemble.judge.chosen")])
    assert not any(candidate.text in told or candidate.candidate_id in told for candidate in THREE)


def test_without_telemetry_nothing_is_recorded(recorded: Recorded) -> None:
    """Not even on a span that somebody else has opened."""
    recorder = BiasRecorder(replace(recorded.telemetry, enabled=False))
    with recorded.telemetry.tracer.start_as_current_span("other"):
        assert trace.get_current_span().is_recording()
        recorder.record("judge", (Judgement(judge="w", shown=THREE, position=1),), (Rating(candidate=THREE[0], score=1.0),))
    assert recorded.events() == []
    assert recorded.points("ensemble.judge.chosen") == []


def test_longer_is_better_is_one() -> None:
    """1 where the longer always scores higher, -1 where it always scores lower, whatever the distances; nothing below three."""
    assert length_correlation([_rating(1, 0.1), _rating(2, 0.2), _rating(900, 0.21)]) == pytest.approx(1.0)
    assert length_correlation([_rating(1, 1.0), _rating(2, 0.5), _rating(900, 0.0)]) == pytest.approx(-1.0)
    assert length_correlation([_rating(1, 0.0), _rating(2, 1.0)]) is None


def test_equal_values_share_their_ranks() -> None:
    """Where all are equal in length, or in score, there is no correlation; where some are, they count as one."""
    assert length_correlation([_rating(5, 0.1), _rating(5, 0.5), _rating(5, 0.9)]) is None
    assert length_correlation([_rating(1, 0.5), _rating(2, 0.5), _rating(3, 0.5)]) is None
    # By hand: ranks 1.5, 1.5, 3 against 1, 2, 3.
    assert length_correlation([_rating(4, 0.1), _rating(4, 0.5), _rating(9, 0.9)]) == pytest.approx(0.8660254)
    # Ranks 2, 2, 2, 4, 5 against 1 to 5.
    assert length_correlation([_rating(length, place) for place, length in enumerate((4, 4, 4, 9, 10))]) == pytest.approx(0.8944272)


@given(st.lists(st.builds(_rating, st.integers(1, 9), st.floats(0, 1)), max_size=8))
def test_a_correlation_lies_between_minus_one_and_one(ratings: list[Rating]) -> None:
    """Rounding included, and the order in which candidates are told does not matter."""
    correlation = length_correlation(ratings)
    assert correlation is None or -1.0 <= correlation <= 1.0
    assert length_correlation(ratings[::-1]) == (None if correlation is None else pytest.approx(correlation))


def test_a_judge_that_also_proposed_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Once for each model and process, without a word of a candidate; never of a judge that wrote none."""
    recorder = BiasRecorder(Telemetry.off())
    with caplog.at_level(logging.WARNING, "services.refiner.bias"):
        for _ in range(3):
            recorder.warn(("a", "w", "b", "a"), THREE)
    assert [record.getMessage() for record in caplog.records] == [
        f"the judge {model} also wrote candidates; a model tends to prefer its own" for model in ("a", "b")
    ]
    assert also_proposed(("w", "a"), THREE)
    assert not also_proposed(("w",), THREE)


@pytest.mark.parametrize("method", [RefineMethod.JUDGE, RefineMethod.CONSISTENT, RefineMethod.RANK, RefineMethod.SCORE])
def test_each_method_that_judges_warns(method: RefineMethod, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes of the verdict."""
    candidates = THREE[:1] if method is RefineMethod.SCORE else THREE
    RefiningBench(answers={"a": FAILED}).refine(refinement(method, *candidates, writer=Writer(model="a")))
    assert [record.levelname for record in caplog.records if record.name == "services.refiner.bias"] == ["WARNING"]


def test_a_taste_for_short_texts_is_counted_too(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """A judge that picks the shortest has a correlation below zero, which the histogram takes, without a word in the log."""
    shortest = min((candidate.text for candidate in THREE), key=len)
    bench = RefiningBench(answers={"w": choose(shortest)}, telemetry=recorded.telemetry)
    with caplog.at_level(logging.WARNING):
        refined = bench.refine(refinement(RefineMethod.JUDGE))
    assert refined.provenance.verdict is not None
    assert (refined.provenance.verdict.length_correlation or 0) < 0
    (correlation,) = recorded.points("ensemble.judge.length_correlation")
    assert 0 <= correlation.sum < 1
    assert caplog.records == []
