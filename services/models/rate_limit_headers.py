"""What a provider says is left of its own limits, read from the headers of an answer of its.

    x-ratelimit-{remaining,limit,reset}-{requests,tokens}     OpenAI, Groq, and those who speak like them; Azure without limit and reset
    anthropic-ratelimit-{requests,tokens,...}-remaining       Anthropic; all of them count by the minute

Whoever reads it may only lower a level to it, so a count that is left out does no harm, and one that is taken for something else would. What counts by the day
stands under the same name with some (Groq's requests, and OpenAI's in its free tier), so a count is believed only where its reset says that all of it is back
within a minute, or where it comes without one, as Azure's does: then a level that was lowered wrongly is whole again after a minute, too. Bare
`x-ratelimit-remaining` is not read: it counts requests of the day with OpenRouter, and credits elsewhere.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.models.retry_after import duration_seconds

WANTED = frozenset(
    ["x-ratelimit-limit-requests"]
    + [f"x-ratelimit-{what}-{unit}" for what in ("remaining", "reset") for unit in ("requests", "tokens")]
    + [f"anthropic-ratelimit-{unit}-remaining" for unit in ("requests", "tokens", "input-tokens", "output-tokens")]
)
"""Names of the headers that say something here, in lower case; no others are worth carrying to the limiter."""
MINUTE_SECONDS = 60.0
LONGEST_WINDOW_SECONDS = 600.0
"""A window that reckons longer is none of a minute. Far from both a minute and a day, since with fixed windows it reckons wrongly by up to the share used."""
# Few enough digits for any store's numbers. What is joined by ", " came in several headers of the same name; "1,000" is no such list.
_COUNTS = re.compile(r"[0-9]{1,10}(?:, [0-9]{1,10})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What is left now; None where the provider did not say it for certain."""

    requests: int | None = None
    tokens: int | None = None
    """Of prompts and answers together."""


def remaining_of(headers: Mapping[str, str]) -> Remaining:
    """Return what is left, the least where several headers tell; names are in lower case. Never raises, whatever the values are."""
    anthropic = {unit: _count(headers.get(f"anthropic-ratelimit-{unit}-remaining")) for unit in ("requests", "tokens", "input-tokens", "output-tokens")}
    return Remaining(
        requests=_least([_within_a_minute(headers, "requests"), anthropic["requests"]]),
        tokens=_least([_within_a_minute(headers, "tokens"), anthropic["tokens"], _both(anthropic["input-tokens"], anthropic["output-tokens"])]),
    )


def _within_a_minute(headers: Mapping[str, str], unit: str) -> int | None:
    """Read an OpenAI-like count; None where it is not certainly one of a minute or less."""
    left = _count(headers.get(f"x-ratelimit-remaining-{unit}"))
    said = headers.get(f"x-ratelimit-reset-{unit}")
    if left is None or said is None:
        return left
    reset = duration_seconds(said)
    if reset is None or reset > MINUTE_SECONDS:
        return None
    # A limit of a day may come back bit by bit, so that while little of it is used that takes less than a minute, too; how much comes back in how long gives it
    # away. Tokens count by the minute wherever the name is documented, and Groq's reset says more than the few that are used would take.
    limit = _count(headers.get(f"x-ratelimit-limit-{unit}")) if unit == "requests" else None
    if limit is not None and limit > left and reset * limit / (limit - left) > LONGEST_WINDOW_SECONDS:
        return None
    return left


def _both(input_tokens: int | None, output_tokens: int | None) -> int | None:
    """Return how many tokens two separate counts leave for prompts and answers together; a call needs some of each."""
    if input_tokens == 0 or output_tokens == 0:
        return 0
    return None if input_tokens is None or output_tokens is None else input_tokens + output_tokens


def _count(text: str | None) -> int | None:
    if text is None or _COUNTS.fullmatch(text) is None:
        return None
    return min(int(count) for count in text.split(", "))


def _least(counts: Iterable[int | None]) -> int | None:
    return min((count for count in counts if count is not None), default=None)
