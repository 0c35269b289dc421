"""How long a provider asks to be left alone."""

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.retry_after import LONGEST_SECONDS, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "2"}, 2.0),
        ({"retry-after": "999999"}, LONGEST_SECONDS),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True)}, 30.0),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW - 30, UTC), usegmt=True)}, 0.0),
        # The two obsolete forms of a date, RFC 9110 section 5.6.7.
        ({"retry-after": f"{datetime.fromtimestamp(NOW + 30, UTC):%A, %d-%b-%y %H:%M:%S} GMT"}, 30.0),
        ({"retry-after": f"{datetime.fromtimestamp(NOW + 30, UTC):%a %b %e %H:%M:%S %Y}"}, 30.0),
        ({"retry-after": f"{datetime.fromtimestamp(NOW + 7200, UTC):%a, %d %b %Y %H:%M:%S} GMT"}, LONGEST_SECONDS),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"retry-after-ms": "999999999"}, LONGEST_SECONDS),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "soon"}, 0.25),
        *(({"retry-after": text}, None) for text in ("", "soon", "nan", "inf", "-1", "Mon, 99 Foo 2026", "9" * 400)),
        ({"x-ratelimit-reset-requests": "6m0s"}, LONGEST_SECONDS),
        ({"x-ratelimit-reset-tokens": "1.5s"}, 1.5),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-requests": "1m2s", "x-ratelimit-reset-tokens": "7"}, 62.0),
        ({"x-ratelimit-reset": str(NOW + 20)}, 20.0),
        ({"x-ratelimit-reset": str(int((NOW + 20) * 1000))}, 20.0),
        ({"x-ratelimit-reset": "later", "x-ratelimit-reset-tokens": ""}, None),
        ({"retry-after": "1", "x-ratelimit-reset": "50"}, 1.0),
        # What has something left is not what was exceeded.
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-tokens": "1.5s"}, 1.5),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, LONGEST_SECONDS),
        ({"x-ratelimit-reset-requests": "50", "x-ratelimit-remaining-requests": "?"}, 50.0),
        ({"x-ratelimit-reset": "50", "x-ratelimit-remaining": "7"}, None),
    ],
)
def test_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Every form that providers use is read; what makes no sense is no wait."""
    assert retry_after(headers, lambda: NOW) == (None if seconds is None else pytest.approx(seconds))


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-tokens"]), st.text(max_size=40)))
def test_any_text_gives_a_sane_wait(headers: dict[str, str]) -> None:
    """A wait is never negative, infinite or longer than the cap."""
    seconds = retry_after(headers, lambda: NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_SECONDS


@pytest.mark.parametrize("zone", ["GMT", "-0000", ""])
def test_a_date_without_a_zone_is_in_gmt(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone of this machine has no part in it."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        date = f"{datetime.fromtimestamp(NOW + 30, UTC):%a, %d %b %Y %H:%M:%S} {zone}".strip()
        assert retry_after({"retry-after": date}, lambda: NOW) == pytest.approx(30.0)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.lists(st.sampled_from([*"0123456789 ,:+-.", "Mon", "Jan", "GMT", "+9999", "99999999999", "_", "e", "ms", "m", "h", "s"]), max_size=12).map("".join))
def test_anything_like_a_date_or_a_duration_gives_a_sane_wait(text: str) -> None:
    """Pieces of dates, numbers and durations in any order do not raise either."""
    for name in ("retry-after", "retry-after-ms", "x-ratelimit-reset"):
        seconds = retry_after({name: text}, lambda: NOW)
        assert seconds is None or 0 <= seconds <= LONGEST_SECONDS
