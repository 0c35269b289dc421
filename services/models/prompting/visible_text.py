"""Text in which nothing is hidden: what a reader would not see becomes U+FFFD, which he does.

Text that is hidden from people can still speak to a model: tag characters spell ASCII, variation selectors carry bytes, bidirectional controls show words in
another order than the one they are read in (Boucher and Anderson 2021, "Trojan Source", arXiv:2111.00169). So these are replaced, one mark for each:

    controls (Cc) but tab, newline and carriage return; surrogates (Cs); private use (Co); noncharacters; format characters (Cf) that cannot be seen, such as
    bidirectional controls, zero-width spaces, soft hyphens, the byte order mark and tags; blank fillers; whatever else Unicode wants ignored by default,
    assigned or not

Line and paragraph separators become newlines. Left as they are: format characters that can be seen (Arabic number signs), and code points that are merely
unassigned, for which ones those are depends on the age of Python's tables, not on the text.

Two kinds are meaningful in one place and hidden in another, so the neighbours decide:

    joiners (U+200C, U+200D)    stay beside a virama and between letters of joining scripts (RFC 5892, appendices A.1 and A.2), the second also between emoji
                                (UTS #51)
    variation selectors         stay where just one stands behind something it can vary: U+FE0E and U+FE0F behind whatever emoji are made of, those of the
                                supplement behind an ideograph, the others behind a letter or symbol beyond ASCII

What is left of a hiding place after that, one bit or byte for each visible character of some scripts, is no way to write sentences that a model would read. A
flag that is spelled with tags, such as Scotland's, becomes a black flag with marks.
"""

import re
import unicodedata

MARK = "\ufffd"

_SEPARATORS = re.compile("[\u2028\u2029]")
_HIDDEN = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ud800-\uf8ff\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U00013430-\U0001343f\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 14))
    + "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff\U000efffe-\U0010ffff"
    "]"
)
_CONTEXTUAL = re.compile("[\u200c\u200d\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_NON_JOINER, _JOINER = "\u200c", "\u200d"
_PRESENTATION = "\ufe0e\ufe0f"
_MARKS_OF_EMOJI = "0123456789#*\u203c\u2049\u3030"
# Arabic, Syriac, Thaana's neighbours, N'Ko, Mandaic and the extensions; Mongolian; Phags-pa; the Arabic presentation forms; Hanifi Rohingya; Adlam.
_JOINING = re.compile("[\u0620-\u08ff\u1807\u180a\u1820-\u18aa\ua840-\ua873\ufb50-\ufdff\ufe70-\ufefc\U00010d00-\U00010d3f\U0001e900-\U0001e95f]")
_SUPPLEMENT = "\U000e0100"
"""The first of the selectors that vary ideographs alone (the Ideographic Variation Database)."""
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_BLANK_BRAILLE = "\u2800"
_VIRAMA = 9
"""The canonical combining class of marks that silence a vowel."""


def sanitize(text: str) -> str:
    """Return the text with a mark in the place of all that is hidden; doing so again changes nothing."""
    return _CONTEXTUAL.sub(_in_context, _HIDDEN.sub(MARK, _SEPARATORS.sub("\n", text)))


def _in_context(match: re.Match[str]) -> str:
    character = match.group()
    decide = _joins if character in (_NON_JOINER, _JOINER) else _varies
    return character if decide(character, match.string, match.start()) else MARK


def _joins(character: str, text: str, at: int) -> bool:
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if _is_virama(before) or _is_virama(after):
        return True
    if _JOINING.match(before) and _JOINING.match(after):
        return True
    if before and before in _PRESENTATION:
        before = text[at - 2 : at - 1]
    return character == _JOINER and _is_symbol(before) and _is_symbol(after)


def _varies(character: str, text: str, at: int) -> bool:
    before = text[at - 1 : at]
    if not before or _CONTEXTUAL.match(before):
        return False
    if character in _PRESENTATION and (_is_symbol(before) or before in _MARKS_OF_EMOJI):
        return True
    if character >= _SUPPLEMENT:
        return _IDEOGRAPH.match(before) is not None
    return _is_symbol(before) or (not before.isascii() and unicodedata.category(before)[0] == "L")


def _is_virama(character: str) -> bool:
    return bool(character) and unicodedata.combining(character) == _VIRAMA


def _is_symbol(character: str) -> bool:
    """Whether it is a symbol such as emoji are made of, skin tones included."""
    shown = bool(character) and character not in {MARK, _BLANK_BRAILLE} and not character.isascii()
    return shown and unicodedata.category(character) in {"So", "Sk", "Sm"}
