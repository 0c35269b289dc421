"""How far free texts agree, by their words alone.

Two texts are alike by the coefficient of Dice ("Measures of the Amount of Ecologic Association Between Species", 1945) and Sørensen ("A method of establishing
groups of equal amplitude in plant sociology", 1948), here of multisets: twice the words they share over the words of both. It sees which words stand in a text
and how often. It does not see their order, nor a negation ("it is safe" and "it is not safe" are nearly the same), nor that two wordings mean the same: a
paraphrase in other words counts as another opinion, and so does a translation.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

LOOKED_AT_CHARACTERS = 16 * 1024
"""How much of a text is compared, from its beginning; counting it takes two or three milliseconds, during which a service does nothing else."""

Bag = Counter[str]
"""Words and how often they stand in a text."""

# Scripts that write words without blanks, or of which one sign says about as much as a word elsewhere; a run of them would be a word as long as a sentence.
_SIGNS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # CJK
)
_WORD = re.compile(rf"(?=\w)[{_SIGNS}]|[^\W{_SIGNS}]+")
# Putting marks in their canonical order takes time with the square of their number (seconds for 64 KiB of them), so texts are normalised in short pieces.
_PIECE = re.compile(r"\S{1,256}")


def bag_of(text: str) -> Bag:
    """Count a text's words, told apart by letters and figures alone, not by case or by compatible forms of a character (NFKC)."""
    bag = Bag()
    for piece in _PIECE.findall(text[:LOOKED_AT_CHARACTERS]):
        bag.update(_WORD.findall(unicodedata.normalize("NFKC", piece).casefold()))
    return bag


def likeness(one: Bag, other: Bag) -> float:
    """Return the Sørensen-Dice coefficient of two bags, 0 for nothing in common to 1 for the same; two empty ones are the same."""
    both = one.total() + other.total()
    return 2 * (one & other).total() / both if both else 1.0


def agreement_of(bags: Sequence[Bag]) -> float | None:
    """Return the mean likeness of all pairs, 0 to 1; None below two."""
    pairs = [likeness(one, other) for one, other in combinations(bags, 2)]
    return math.fsum(pairs) / len(pairs) if pairs else None


def most_agreeing(bags: Sequence[Bag]) -> int:
    """Return the position of the text that is most like the others in the mean (the medoid), the first among equals; there must be one."""
    # Exact sums, so that equals are equal in whatever order their likenesses are added.
    sums = [math.fsum(likeness(bag, other) for position, other in enumerate(bags) if position != own) for own, bag in enumerate(bags)]
    return sums.index(max(sums))
