"""Texts cut so that a prompt with them fits into a model's context.

Room is shared by max-min fairness: a text that wants less than an even share takes what it wants, and what it leaves goes to the longer ones in even shares.
No text falls below a least share, even where the prompt then does not fit: a draft of which nothing is shown cannot be weighed, and the estimate errs on the
high side.
"""

from collections.abc import Callable, Sequence

from services.models.conversation import Message
from services.models.prompting.delimiters import escape
from services.models.prompting.visible_text import sanitize
from services.models.token_estimates import estimate_messages, estimate_text

LEAST_TOKENS = 64
"""Enough for the mark of a cut and a sentence or two."""
_MOST_BYTES_TO_A_TOKEN = 3
"""Of what `estimate_text` counts; small letters have that many."""

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


def shown_texts(texts: Sequence[str], *, byte_limit: int, token_limit: int | None = None) -> tuple[str, ...]:
    """Return each text as it may stand in a prompt: no longer than `byte_limit` bytes of UTF-8, together estimated at `token_limit` tokens at most."""
    visible = [sanitize(text) for text in texts]
    whole = tuple(escape(truncate(text, byte_limit)) for text in visible)
    if token_limit is None:
        return whole
    wanted = [estimate_text(text) for text in whole]
    shares = fair_shares(wanted, token_limit)
    return tuple(
        shown if want <= share else _cut_to_tokens(text, share, byte_limit) for shown, text, want, share in zip(whole, visible, wanted, shares, strict=True)
    )


def fair_shares(wanted: Sequence[int], limit: int) -> tuple[int, ...]:
    """Share `limit` among those who want so much each; nobody gets more than he wants, nor less than `LEAST_TOKENS` if he wants that much."""
    shares = [0] * len(wanted)
    for done, position in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[position] = min(wanted[position], max(LEAST_TOKENS, limit // (len(wanted) - done)))
        limit -= shares[position]
    return tuple(shares)


def truncate(text: str, byte_limit: int) -> str:
    """Return the text, cut at a character boundary to `byte_limit` bytes of UTF-8; what is cut is marked."""
    raw = text.encode()
    return text if len(raw) <= byte_limit else _cut(raw, byte_limit)


def _cut(raw: bytes, byte_limit: int) -> str:
    kept = raw[:byte_limit].decode(errors="ignore")
    return f"{kept}\n[cut here: {len(raw) - len(kept.encode())} bytes left out]"


def _cut_to_tokens(text: str, tokens: int, byte_limit: int) -> str:
    """Return the longest beginning of the text that is estimated at so many tokens together with its mark, escaped."""
    raw = text.encode()
    # Halving the doubt; `kept` bytes always fit, `beyond` never do.
    kept, beyond = 0, min(byte_limit, len(raw), _MOST_BYTES_TO_A_TOKEN * tokens) + 1
    while beyond - kept > 1:
        middle = (kept + beyond) // 2
        if estimate_text(escape(_cut(raw, middle))) <= tokens:
            kept = middle
        else:
            beyond = middle
    return escape(_cut(raw, kept))
