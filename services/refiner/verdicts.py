"""What judges say, read strictly: one JSON object of exactly the wanted form, or a refusal.

    text --too long, no single object, double key--------> BadVerdict
      |--fence around the whole--> without it
      `--object--wrong keys, types, range, sizes---------> BadVerdict
                `----------------------------------------> position, ranking, score or analysis

Nothing is guessed, put right or picked out of prose: what is nearly a verdict may be somebody else's. Whatever the text, reading it raises nothing but
`BadVerdict`.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from services.models.refinement import Analysis
from services.models.strict_json import BadJson, read_json, unfenced

MOST_BYTES = 64 << 10
"""Longest verdict, in bytes of UTF-8; well above the longest analysis that anybody reads."""
HIGHEST_SCORE = 10
MOST_POINTS = 16
LONGEST_POINT = 1000

ANALYSIS_KEYS = tuple(field.name for field in fields(Analysis))


class BadVerdict(Exception):
    """A verdict that cannot be read; `problem` says why in words of ours that hold nothing of the text."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def read_best(text: str, count: int) -> int:
    """Return the position from 1 of the choice among `count`. Raises `BadVerdict`."""
    (best,) = _values(text, ("best",))
    return _whole(best, "best", 1, count)


def read_ranking(text: str, count: int) -> tuple[int, ...]:
    """Return all positions from 1 to `count`, the best first. Raises `BadVerdict`."""
    (ranking,) = _values(text, ("ranking",))
    if not isinstance(ranking, list):
        raise BadVerdict("the ranking was no list")
    if len(ranking) != count:
        raise BadVerdict("the ranking had more or fewer numbers than there are drafts")
    positions = tuple(_whole(position, "ranking", 1, count) for position in ranking)
    if len(set(positions)) != count:
        raise BadVerdict("the ranking named a draft twice")
    return positions


def read_score(text: str) -> int:
    """Return the score, 0 to `HIGHEST_SCORE`. Raises `BadVerdict`."""
    (score,) = _values(text, ("score",))
    return _whole(score, "score", 0, HIGHEST_SCORE)


def read_analysis(text: str) -> Analysis:
    """Return the analysis. Raises `BadVerdict`."""
    return Analysis(**{key: _points(value) for key, value in zip(ANALYSIS_KEYS, _values(text, ANALYSIS_KEYS), strict=True)})


def best_schema(count: int) -> str:
    """Return the JSON Schema of a choice among `count`."""
    return _schema(best=_numbers(1, count))


def ranking_schema(count: int) -> str:
    """Return the JSON Schema of a ranking of `count`."""
    return _schema(ranking={"type": "array", "items": _numbers(1, count), "minItems": count, "maxItems": count})


def score_schema() -> str:
    """Return the JSON Schema of a score."""
    return _schema(score=_numbers(0, HIGHEST_SCORE))


def analysis_schema() -> str:
    """Return the JSON Schema of an analysis; how long a text may be is left out, for not all endpoints know how to say it."""
    return _schema(**{key: {"type": "array", "items": {"type": "string"}, "maxItems": MOST_POINTS} for key in ANALYSIS_KEYS})


def _schema(**properties: object) -> str:
    return json.dumps({"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False})


def _numbers(least: int, most: int) -> dict[str, object]:
    # An enumeration rather than bounds: more endpoints can keep a model to it.
    return {"type": "integer", "enum": list(range(least, most + 1))}


def _values(text: str, keys: Sequence[str]) -> list[Any]:
    """Return the values of these keys of the one object that the text is."""
    if len(text) > MOST_BYTES:
        # Blanks count as well.
        raise BadVerdict(f"it is longer than {MOST_BYTES} bytes")
    problem = ""
    verdict: object = None
    try:
        verdict = read_json(unfenced(text), most_bytes=MOST_BYTES)
    except BadJson as refusal:
        problem = str(refusal)
    if problem:
        raise BadVerdict(f"it {problem}")
    if not isinstance(verdict, dict):
        raise BadVerdict("it was not one JSON object and nothing else")
    if verdict.keys() != set(keys):
        raise BadVerdict("its keys were not exactly those that are wanted")
    return [verdict[key] for key in keys]


def _whole(value: object, name: str, least: int, most: int) -> int:
    # Not isinstance: True is an int to Python.
    if type(value) is not int:
        raise BadVerdict(f"the value of {name} was no whole number")
    if not least <= value <= most:
        raise BadVerdict(f"the value of {name} was not between {least} and {most}")
    return value


def _points(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadVerdict("a value was no list of texts")
    if len(value) > MOST_POINTS:
        raise BadVerdict(f"a list had more than {MOST_POINTS} texts")
    points = []
    for point in value:
        if not isinstance(point, str):
            raise BadVerdict("a list held something that is no text")
        if not 1 <= len(point) <= LONGEST_POINT:
            raise BadVerdict(f"a text was empty or had more than {LONGEST_POINT} characters")
        if any("\ud800" <= character <= "\udfff" for character in point):
            raise BadVerdict("a text held half a character")
        points.append(point)
    return tuple(points)
