"""Texts cut so that a prompt with them fits into a model's context.

Room is shared by max-min fairness: a text that wants less than an even share takes what it wants, and what it leaves goes to the longer ones in even shares.
No text falls below a least share, even where the prompt then does not fit: a draft of which nothing is shown cannot be weighed, and the estimate errs on the
high side.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from services.models.conversation import Message
from services.models.prompting.delimiters import escape
from services.models.prompting.visible_text import sanitize
from services.models.token_estimates import estimate_messages, estimate_text

LEAST_TOKENS = 64
"""Enough for the mark of a cut and a sentence or two."""
LONG_BYTES = 1 << 16
"""Beyond which a cut need not be made at the very last byte that fits."""
_MOST_BYTES_TO_A_TOKEN = 3
"""Of what `estimate_text` counts; small letters have that many."""

THREADED_CHARACTERS = 1 << 17
"""From which length on, of all that goes into it, a prompt is made in a thread."""
_BEYOND = 2
"""How many characters after the last one that is shown decide how it is shown."""

Made = TypeVar("Made")
Build = Callable[[Sequence[str]], tuple[Message, ...]]
"""Makes a prompt with these texts in it."""


def input_limit(context_tokens: int | None, output_tokens: int) -> int | None:
    """Return how many tokens a prompt may have beside so long an answer; None where the model's context is not known."""
    return None if context_tokens is None else max(0, context_tokens - output_tokens)


def fitted(build: Build, texts: Sequence[str], *, byte_limit: int, input_tokens: int | None) -> tuple[Message, ...]:
    """Return the prompt with the texts made visible, cut and escaped, so that it is estimated at `input_tokens` at most; None cuts to `byte_limit` alone."""
    if input_tokens is None:
        return build(shown_texts(texts, byte_limit=byte_limit))
    frame_tokens = estimate_messages(build([""] * len(texts)))
    # Estimates are rounded up, so the whole is never estimated above the sum of its parts.
    return build(shown_texts(texts, byte_limit=byte_limit, token_limit=input_tokens - frame_tokens))


async def made_aside(characters: int, make: Callable[[], Made]) -> Made:
    """Make a prompt of so many characters; a long one in a thread, so that the service goes on meanwhile."""
    return make() if characters < THREADED_CHARACTERS else await asyncio.to_thread(make)


def shown_texts(texts: Sequence[str], *, byte_limit: int, token_limit: int | None = None) -> tuple[str, ...]:
    """Return each text as it may stand in a prompt: no longer than `byte_limit` bytes of UTF-8, together estimated at `token_limit` tokens at most."""
    # A character takes a byte at least, so what comes after as many as there may be bytes is not shown, and need not be made visible.
    visible = [sanitize(text[: byte_limit + _BEYOND]) for text in texts]
    unseen = [len(text[byte_limit + _BEYOND :].encode("utf-8", "replace")) for text in texts]
    whole = tuple(escape(truncate(text, byte_limit, beyond)) for text, beyond in zip(visible, unseen, strict=True))
    if token_limit is None:
        return whole
    wanted = [estimate_text(text) for text in whole]
    shares = fair_shares(wanted, token_limit)
    return tuple(
        shown if want <= share else _cut_to_tokens(text, share, byte_limit, beyond)
        for shown, text, beyond, want, share in zip(whole, visible, unseen, wanted, shares, strict=True)
    )


def fair_shares(wanted: Sequence[int], limit: int) -> tuple[int, ...]:
    """Share `limit` among those who want so much each; nobody gets more than he wants, nor less than `LEAST_TOKENS` if he wants that much."""
    shares = [0] * len(wanted)
    for done, position in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[position] = min(wanted[position], max(LEAST_TOKENS, limit // (len(wanted) - done)))
        limit -= shares[position]
    return tuple(shares)


def truncate(text: str, byte_limit: int, beyond: int = 0) -> str:
    """Return the text, cut at a character boundary to `byte_limit` bytes of UTF-8; what is cut is marked, with the bytes that had been cut before."""
    raw = text.encode()
    return text if len(raw) <= byte_limit and not beyond else _cut(raw, byte_limit, beyond)


def _cut(raw: bytes, byte_limit: int, beyond: int) -> str:
    kept = raw[:byte_limit].decode(errors="ignore")
    return f"{kept}\n[cut here: {len(raw) - len(kept.encode()) + beyond} bytes left out]"


def _cut_to_tokens(text: str, tokens: int, byte_limit: int, beyond_it: int) -> str:
    """Return about the longest beginning of the text that is estimated at so many tokens together with its mark, escaped."""
    raw = text.encode()
    # Halving the doubt; `kept` bytes always fit, `beyond` never do. The last bytes of a long text are not worth reading all of it once more.
    kept, beyond = 0, min(byte_limit, len(raw), _MOST_BYTES_TO_A_TOKEN * tokens) + 1
    while beyond - kept > max(1, kept >> 7 if kept > LONG_BYTES else 1):
        middle = (kept + beyond) // 2
        if estimate_text(escape(_cut(raw, middle, beyond_it))) <= tokens:
            kept = middle
        else:
            beyond = middle
    return escape(_cut(raw, kept, beyond_it))
