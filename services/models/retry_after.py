"""How long a provider asks to be left alone, in whichever of its headers it says so."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 120.0
"""Cap on any wait; a provider that asks for more is asked again after it."""
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12
_LIMITS = ("x-ratelimit-{}", "x-ratelimit-{}-requests", "x-ratelimit-{}-tokens")
READ = frozenset(["retry-after-ms", "retry-after", *(limit.format(what) for limit in _LIMITS for what in ("remaining", "reset"))])
"""Names of the headers that are read here, in lower case."""


def retry_after(headers: Mapping[str, str], wall_clock: Callable[[], float]) -> float | None:
    """Return the seconds to wait, at most `LONGEST_SECONDS`; None where no header names a wait that makes sense.

    `retry-after-ms` and `retry-after` (seconds, fractions or a date, RFC 9110 section 10.2.3) are the provider's word; the reset times of its limits are only
    asked where it gave none, and only of those that have nothing left. `wall_clock` gives seconds since the epoch.
    """
    said = [_scaled(headers.get("retry-after-ms"), 0.001), _seconds_or_date(headers.get("retry-after"), wall_clock)]
    waits = [wait for wait in said if wait is not None]
    if not waits:
        spent = [limit for limit in _LIMITS if not _scaled(headers.get(limit.format("remaining")), 1.0)]
        waits = [wait for limit in spent if (wait := _reset(headers.get(limit.format("reset")), wall_clock)) is not None]
    return min(max(waits), LONGEST_SECONDS) if waits else None


def _scaled(text: str | None, unit: float) -> float | None:
    """Read a number; what is no number, infinite or negative is no wait."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number * unit if math.isfinite(number) and number >= 0 else None


def _seconds_or_date(text: str | None, wall_clock: Callable[[], float]) -> float | None:
    seconds = _scaled(text, 1.0)
    if seconds is not None or text is None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
        # A date without a zone is meant in GMT like all dates of HTTP, not in the zone of this machine.
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - wall_clock())
    except (ValueError, OverflowError, TypeError):
        return None


def _reset(text: str | None, wall_clock: Callable[[], float]) -> float | None:
    """Read a reset time: seconds, a point in time, or a duration such as "6m0s"."""
    number = _scaled(text, 1.0)
    if number is not None:
        if number >= _EPOCH_MILLISECONDS:
            return max(0.0, number / 1000 - wall_clock())
        return max(0.0, number - wall_clock()) if number >= _EPOCH_SECONDS else number
    return None if text is None else duration_seconds(text)


def duration_seconds(text: str) -> float | None:
    """Read a duration such as "7.66s", "6m0s" or "120ms", or bare seconds; None where it is neither."""
    if not text.isascii():
        return None
    number = _scaled(text, 1.0)
    if number is not None:
        return number
    match = _DURATION.fullmatch(text[:64].strip())
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + milliseconds / 1000
