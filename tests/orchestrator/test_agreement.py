"""How far texts agree by their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.agreement import LOOKED_AT_CHARACTERS, Bag, agreement_of, bag_of, likeness, most_agreeing

texts = st.text(max_size=60)


def _bags(*given_texts: str) -> list[Bag]:
    return [bag_of(text) for text in given_texts]


def test_words_are_counted_without_case_and_marks() -> None:
    """Letters and figures make words; case, punctuation and compatible forms of a character do not tell them apart."""
    assert bag_of("The cat, the CAT; \uff26ive x2!") == {"the": 2, "cat": 2, "five": 1, "x2": 1}
    assert bag_of("STRASSE") == bag_of("straße")


@pytest.mark.parametrize("text", ["東京都", "とうき", "トウキ", "서울시", "ทอง"])
def test_signs_of_scripts_without_blanks_are_words_of_their_own(text: str) -> None:
    """A sentence without blanks is not one long word, so sentences that differ in one sign are nearly alike."""
    assert bag_of(text) == dict.fromkeys(text, 1)
    assert bag_of(f"ab{text}cd12").total() == 5


def test_marks_of_those_scripts_are_no_words() -> None:
    """Punctuation does not become a word because it stands in the block of a script."""
    assert bag_of("\u30fb\u0e4f \u3001") == {}


def test_likeness_is_that_of_dice() -> None:
    """Twice the words in common, as often as both have them, over the words of both."""
    assert likeness(Bag(a=2, b=1), Bag(a=1, c=1)) == 2 * 1 / 5


@given(texts, texts)
def test_likeness_is_symmetric_and_bounded(one: str, other: str) -> None:
    """It lies between 0 and 1, whichever text comes first, and a text is wholly like itself."""
    assert likeness(bag_of(one), bag_of(other)) == likeness(bag_of(other), bag_of(one))
    assert 0.0 <= likeness(bag_of(one), bag_of(other)) <= 1.0
    assert likeness(bag_of(one), bag_of(one)) == 1.0


def test_agreement_is_the_mean_of_all_pairs() -> None:
    """Each pair counts once: two that are the same and a third that shares nothing make a third."""
    assert agreement_of(_bags("a b", "a b", "c")) == pytest.approx(1 / 3)
    assert agreement_of(_bags("a b", "a c")) == 0.5


def test_extremes() -> None:
    """Texts that are the same agree wholly, also those without words; texts without a word in common not at all."""
    assert agreement_of(_bags("x y", "Y X!")) == 1.0
    assert agreement_of(_bags("", "...")) == 1.0
    assert agreement_of(_bags("x", "y")) == 0.0
    assert agreement_of(_bags("x", "")) == 0.0


@pytest.mark.parametrize("few", [[], ["alone"]])
def test_below_two_texts_there_is_no_agreement(few: list[str]) -> None:
    """One text agrees with nobody."""
    assert agreement_of(_bags(*few)) is None


def test_what_comes_late_is_not_looked_at() -> None:
    """Only the first 16 KiB of a text are compared."""
    start = "a " * (LOOKED_AT_CHARACTERS // 2)
    assert bag_of(start + "late") == {"a": LOOKED_AT_CHARACTERS // 2}
    assert bag_of("a" * (LOOKED_AT_CHARACTERS - 4) + " end") == bag_of("a" * (LOOKED_AT_CHARACTERS - 4) + " end more")


def test_a_heap_of_marks_does_not_hold_it_up() -> None:
    """Marks in the wrong order take the square of their number to sort, so a run without blanks is normalised in pieces of 256 characters."""
    assert bag_of("a" + "\u0301" * 7_000 + "\u0327" * 7_000 + " end")["end"] == 1
    assert bag_of("x" * 254 + "e\u0301") == {"x" * 254 + "\u00e9": 1}
    assert bag_of("x" * 255 + "e\u0301") == {"x" * 255 + "e": 1}


def test_the_medoid_is_the_text_most_like_the_others() -> None:
    """It is the one in the middle, not the one with the most words."""
    assert most_agreeing(_bags("a b x", "a b c", "b c y", "p q r s t")) == 1


def test_the_first_medoid_wins_a_tie() -> None:
    """Equals go by order, also where their likenesses add up in another order; a text alone is its own."""
    assert most_agreeing(_bags("a", "b", "c")) == 0
    assert most_agreeing(_bags("alone")) == 0
    # All four have the same three likenesses, 1, 0.4 and 0.4, of which plain addition makes more when the 1 comes last.
    assert most_agreeing(_bags("b b c", "b b c", "a c", "a c")) == 0


@given(st.lists(texts, min_size=1, max_size=5))
def test_the_medoid_has_the_highest_sum(given_texts: list[str]) -> None:
    """No text is more like the others than the one that is picked, and none before it is as much."""
    bags = [bag_of(text) for text in given_texts]
    means = [sum(likeness(bag, other) for place, other in enumerate(bags) if place != own) for own, bag in enumerate(bags)]
    picked = most_agreeing(bags)
    assert means[picked] == pytest.approx(max(means))
    assert all(mean < means[picked] + 1e-9 for mean in means[:picked])
