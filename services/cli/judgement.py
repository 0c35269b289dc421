"""What judges, votes and an analysis said of the candidates, in lines for a person."""

from collections.abc import Iterator

from ensemble.v1 import analysis_pb2, provenance_pb2

_POINTS = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")


def verdict_lines(verdict: provenance_pb2.Verdict) -> Iterator[str]:
    """Yield the ranking with its scores and who judged, then the votes."""
    if verdict.ranking:
        scores: list[float | None] = [*verdict.scores] if len(verdict.scores) == len(verdict.ranking) else [None] * len(verdict.ranking)
        places = (
            f"{place}. {candidate}" + ("" if score is None else f" ({score:.2f})")
            for place, (candidate, score) in enumerate(zip(verdict.ranking, scores, strict=True), 1)
        )
        judges = f" by {', '.join(verdict.judges)}" if verdict.judges else ""
        yield f"ranking{judges}{'' if verdict.agreed else ', not of one mind'}: {', '.join(places)}"
    if verdict.judge_also_proposed:
        yield "a judge's model also wrote candidates, and may prefer its own"
    if verdict.votes:
        votes = (f"{_line(vote.value)} has {vote.weight:g} ({', '.join(vote.candidate_ids)})" for vote in verdict.votes)
        yield f"votes: {'; '.join(votes)}"


def analysis_lines(analysis: analysis_pb2.Analysis) -> Iterator[str]:
    """Yield each kind of point that there is, with its points below."""
    for kind in _POINTS:
        points = getattr(analysis, kind)
        if points:
            yield f"{kind.replace('_', ' ')}:"
        for point in points:
            yield f"  - {_line(point)}"


def _line(text: str) -> str:
    """Return a model's words as one line."""
    return " ".join(text.split())
