"""The page about traces says what is so: its names exist, and its drawing is what scripts/trace_tree.py prints."""

import re
from pathlib import Path

import pytest

from services.chassis import _semconv as semconv
from services.models.outcomes import Outcome

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tracing.md").read_text(encoding="utf-8")
NAMES = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}
DRAWING = re.search(r"^ began ms +took ms\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_attribute_is_one_that_is_recorded() -> None:
    """Those in the text and the tables, and those in the drawing, where "ensemble." is left out."""
    assert DRAWING is not None
    told = set(re.findall(r"`((?:ensemble|gen_ai|rpc|error|server)\.[a-z_.]+)", PAGE)) - {"ensemble.v", "ensemble.yaml"}
    drawn = set(re.findall(r"([a-z_.]+)=", DRAWING[1]))
    assert {"ensemble.outcome", "gen_ai.evaluation.result", "error.type", "rpc.response.status_code"} <= told
    assert told - {"ensemble.panel"} <= NAMES
    assert drawn <= {name.removeprefix("ensemble.") for name in NAMES}


def test_every_outcome_is_one() -> None:
    """In capitals, as on the receipt."""
    capitals = set(re.findall(r"(?:`|outcome=)([A-Z]{2,}(?:_[A-Z]+)*)\b", PAGE))
    assert {"STRAGGLER_CANCELLED", "HEDGE_LOST", "OK"} <= capitals
    assert capitals - {"ENSEMBLE"} <= {str(outcome) for outcome in Outcome}


def test_the_drawing_adds_up() -> None:
    """No span begins before the one it hangs on, or takes longer than the whole; each hangs on one that is there."""
    assert DRAWING is not None
    lines = [re.fullmatch(r" *([0-9.]+) +([0-9.]+) [ !] ([ │├└]*)([a-z].*)", line) for line in DRAWING[1].splitlines()]
    spans = [(float(line[1]), float(line[2]), len(line[3]) // 2) for line in lines if line is not None]
    assert len(spans) == len(lines)
    above: list[tuple[float, float, int]] = []
    for began, took, depth in spans:
        above = above[:depth]
        assert len(above) == depth
        assert not above or began >= above[-1][0]
        above.append((began, took, depth))
        assert took <= spans[0][1]


@pytest.mark.parametrize("target", re.findall(r"make ([a-z-]+) ", PAGE))
def test_every_target_is_there(target: str) -> None:
    """As the Makefile has it."""
    assert f"\n{target}: " in (ROOT / "Makefile").read_text(encoding="utf-8")
