"""Canaries are found wherever and however they are told, and nothing else is."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.fuzz.canaries import Canaries, Canary

CANARIES = Canaries(7)
WORD = CANARIES.word(31, "p")


def test_a_canary_says_whose_it_is() -> None:
    """The request's number and the place, whatever stands around it and however it is written."""
    assert CANARIES.found(f"a prompt: {WORD}.".encode()) == [Canary(31, "p")]
    assert CANARIES.found(WORD.upper().encode()) == [Canary(31, "p")]
    assert CANARIES.found(f"{WORD}{CANARIES.word(5, 'h')}".encode()) == [Canary(5, "h"), Canary(31, "p")]


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_canary_in_base64_is_found(before: bytes, after: bytes) -> None:
    """However it lies among the other bytes."""
    assert CANARIES.found(base64.b64encode(before + WORD.encode() + after)) == [Canary(-1, "?")]


def test_a_canary_that_is_cut_off_is_found() -> None:
    """Its tag is enough."""
    assert CANARIES.found(CANARIES.tag.encode()) == [Canary(-1, "?")]
    assert CANARIES.found(WORD[: len(CANARIES.tag) + 2].encode()) == [Canary(-1, "?")]


@pytest.mark.parametrize("data", [b"", b"zq", Canaries(8).word(31, "p").encode(), CANARIES.tag[:-1].encode()])
def test_nothing_else_is_found(data: bytes) -> None:
    """Nor the canaries of another run."""
    assert CANARIES.found(data) == []
