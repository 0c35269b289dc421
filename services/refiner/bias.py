"""What judges prefer beside quality, made visible: a place in the list, a model, length, their own words.

A judge that chooses what stands first more often than chance does is biased (Wang et al. 2023, "Large Language Models are not Fair Evaluators",
arXiv:2305.17926), and so is one that likes long drafts or its own (Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena",
arXiv:2306.05685). One verdict shows none of it; metrics over many do. Texts are never recorded.
"""

import logging
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from opentelemetry import trace

from services.chassis import _semconv as semconv
from services.chassis.telemetry import Telemetry
from services.models.refinement import RefinementCandidate

_log = logging.getLogger(__name__)

_POSITIONS = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
_CORRELATIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8)
LEAST_CORRELATED = 3
"""Of two candidates one is always the longer, so a correlation says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one judge, or one pass of it, put first."""

    judge: str
    """The judge's model."""
    shown: tuple[RefinementCandidate, ...]
    """In the order in which the judge saw them."""
    position: int
    """Of its choice among them, from 1."""

    @property
    def choice(self) -> RefinementCandidate:
        """What it put first."""
        return self.shown[self.position - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What all judges together made of one candidate."""

    candidate: RefinementCandidate
    score: float
    """0 to 1; where they only picked, 1 for the choice and 0 for the others."""
    rank: int | None = None
    """From 1; None where it was not ranked."""
    position: int | None = None
    """At which it was shown, from 1; None where the first judge that counted did not see it."""


def also_proposed(judges: Collection[str], candidates: Sequence[RefinementCandidate]) -> bool:
    """Whether a judge's model wrote one of the candidates."""
    return not {candidate.model for candidate in candidates}.isdisjoint(judges)


def length_correlation(ratings: Sequence[Rating]) -> float | None:
    """Return Spearman's rank correlation of length with score: 1 where longer is always better, -1 where it is always worse.

    None below three candidates, and where all have the same length or the same score.
    """
    if len(ratings) < LEAST_CORRELATED:
        return None
    lengths = _ranks([len(rating.candidate.text) for rating in ratings])
    scores = _ranks([rating.score for rating in ratings])
    try:
        return max(-1.0, min(1.0, statistics.correlation(lengths, scores)))
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    """Return each value's rank from 1; equal ones share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


class BiasRecorder:
    """Records what judges choose; where telemetry is off, it only warns."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._enabled = telemetry.enabled
        self._warned: set[str] = set()
        meter = telemetry.meter
        self._positions = meter.create_histogram(
            semconv.ENSEMBLE_JUDGE_DISPLAY_INDEX,
            unit="{position}",
            description="Position, from 1, at which a judge's choice was shown.",
            explicit_bucket_boundaries_advisory=_POSITIONS,
        )
        self._chosen = meter.create_counter(semconv.ENSEMBLE_JUDGE_CHOSEN, unit="{judgement}", description="Judgements by judge and by the model chosen.")
        self._correlations = meter.create_histogram(
            semconv.ENSEMBLE_JUDGE_LENGTH_CORRELATION,
            unit="1",
            # One is added to it, for a histogram drops what is below zero.
            description="One plus Spearman's rank correlation of the candidates' lengths with how well they were judged: 0 to 2, and 1 for none.",
            explicit_bucket_boundaries_advisory=_CORRELATIONS,
        )

    def record(self, evaluation: str, judgements: Sequence[Judgement], ratings: Sequence[Rating]) -> None:
        """Record one verdict: each judgement that counted, and one event on the current span for each candidate that was judged."""
        if not self._enabled:
            return
        for judgement in judgements:
            judge = {semconv.ENSEMBLE_JUDGE_MODEL: judgement.judge}
            self._positions.record(judgement.position, judge)
            self._chosen.add(1, {**judge, semconv.ENSEMBLE_CANDIDATE_MODEL: judgement.choice.model})
        correlation = length_correlation(ratings)
        if correlation is not None:
            self._correlations.record(1 + correlation, {semconv.GEN_AI_EVALUATION_NAME: evaluation})
        span = trace.get_current_span()
        for rating in ratings:
            attributes: dict[str, str | int | float | None] = {
                semconv.GEN_AI_EVALUATION_NAME: evaluation,
                semconv.GEN_AI_EVALUATION_SCORE_VALUE: rating.score,
                semconv.ENSEMBLE_CANDIDATE_DISPLAY_INDEX: rating.position,
                semconv.ENSEMBLE_CANDIDATE_RANK: rating.rank,
                semconv.ENSEMBLE_CANDIDATE_LENGTH: len(rating.candidate.text),
            }
            span.add_event(semconv.GEN_AI_EVALUATION_RESULT, {name: value for name, value in attributes.items() if value is not None})

    def warn(self, judges: Collection[str], candidates: Sequence[RefinementCandidate]) -> None:
        """Log, once for each model, that a judge's model also wrote candidates."""
        for judge in judges:
            if judge not in self._warned and also_proposed((judge,), candidates):
                self._warned.add(judge)
                _log.warning("the judge %s also wrote candidates; a model tends to prefer its own", judge)
