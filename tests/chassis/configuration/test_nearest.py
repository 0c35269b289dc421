"""What was likely meant."""

import pytest

from services.chassis.configuration.nearest import hint, nearest


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("timout", "timeout"),
        ("TIMEOUT", "timeout"),
        ("straggler-grace", "straggler_grace"),
        ("idle", "idle_timeout"),
        ("timeout_in_seconds", "timeout"),
        ("ti", None),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_nearest_word_is_found_whatever_its_case(word: str, found: str | None) -> None:
    """A slip of a letter or of case, a beginning and an addition are recognised, and nothing is guessed for what resembles no word."""
    assert nearest(word, ["timeout", "idle_timeout", "straggler_grace"]) == found


def test_a_hint_says_what_was_likely_meant() -> None:
    """Where a word is near, it alone is told."""
    assert hint("careful1", ["careful", "quick"]) == '; did you mean "careful"?'


def test_a_hint_lists_what_is_known_where_nothing_is_near() -> None:
    """Where no word is near, the known ones are listed in order."""
    assert hint("zzz", ["quick", "careful"]) == "; known are careful, quick"


def test_a_hint_lists_no_more_than_a_line_holds() -> None:
    """Of many known words the first twelve are listed."""
    listed = hint("zzz", [f"model{number:02}" for number in range(13)])
    assert listed.endswith("model11, …")
    assert "model12" not in listed


def test_a_hint_says_that_there_is_nothing_to_choose() -> None:
    """Without any known word the hint says so."""
    assert hint("zzz", []) == "; there is none"


def test_a_hint_repeats_no_key() -> None:
    """Where one was pasted in place of a name that is known by now."""
    key = "ensemble_" + "A" * 43
    assert hint("zzz", [key, "quick"]) == "; known are ensemble_…, quick"
    assert hint(key[:-1], [key]) == '; did you mean "ensemble_…"?'
