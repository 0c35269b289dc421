"""What a provider says is left of its limits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.rate_limit_headers import WANTED, Remaining, remaining_of

OPENAI = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-limit-tokens": "160000",
    "x-ratelimit-remaining-tokens": "159976",
    "x-ratelimit-reset-tokens": "9ms",
}
GROQ = {
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-reset-requests": "2m59.56s",
    "x-ratelimit-limit-tokens": "18000",
    "x-ratelimit-remaining-tokens": "17997",
    "x-ratelimit-reset-tokens": "7.66s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "999",
    "anthropic-ratelimit-requests-reset": "2026-08-21T12:40:59Z",
    "anthropic-ratelimit-tokens-remaining": "96000",
    "anthropic-ratelimit-tokens-reset": "2026-08-21T12:40:59Z",
    "anthropic-ratelimit-input-tokens-remaining": "80000",
    "anthropic-ratelimit-output-tokens-remaining": "16000",
}


@pytest.mark.parametrize(
    ("headers", "requests", "tokens"),
    [
        ({}, None, None),
        (OPENAI, 4999, 159976),
        ({"x-ratelimit-remaining-requests": "19", "x-ratelimit-remaining-tokens": "19913"}, 19, 19913),
        ({"x-ratelimit-remaining-requests": "19", "x-ratelimit-reset-requests": "10"}, 19, None),
        (GROQ, None, 17997),
        (ANTHROPIC, 999, 96000),
        # OpenRouter's counts by the day; bare names count anything.
        ({"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1741305600000"}, None, None),
        ({"ratelimit-remaining": "3", "x-ratelimit-remaining-tokens_usage_based": "3", "x-ratelimit-remaining-requests-day": "3"}, None, None),
        ({"anthropic-ratelimit-unified-remaining": "1", "anthropic-priority-input-tokens-remaining": "1"}, None, None),
    ],
    ids=["nothing", "OpenAI", "Azure", "Azure with a reset", "Groq", "Anthropic", "OpenRouter", "others' names", "Anthropic's other limits"],
)
def test_shapes(headers: dict[str, str], requests: int | None, tokens: int | None) -> None:
    """What counts by the minute is read, from whomever; what counts by the day, or may, is not."""
    assert remaining_of(headers) == Remaining(requests=requests, tokens=tokens)


@pytest.mark.parametrize(
    ("limit", "left", "reset", "believed"),
    [
        # By the day: Groq, whether little or much is used, and OpenAI's free tier.
        ("14400", "14399", "6s", False),
        ("1000", "999", "1m26.4s", False),
        ("1000", "3", "23h55m40s", False),
        ("200", "199", "7m12s", False),
        # By the hour, of one minute, and of ten seconds.
        ("3600", "3599", "1s", False),
        ("60", "59", "1s", True),
        ("60", "0", "1m0s", True),
        ("50", "45", "1", True),
        # A window that ends all at once, by the minute; early in it one cannot know.
        ("100", "50", "55s", True),
        ("100", "99", "59s", False),
        # A day that is over within a minute: what is left is all there is until then.
        ("1000", "3", "40s", True),
        ("60", "60", "0s", True),
        ("60", "60", "0", True),
        ("60", "61", "1s", True),
        ("60", "5", "60.1s", False),
        ("?", "5", "30s", True),
        ("?", "5", "90s", False),
        # A point in time, and what is no time at all.
        ("60", "5", "1741305600", False),
        ("60", "5", "2026-08-21T12:40:59Z", False),
        ("60", "5", "soon", False),
        ("60", "5", "", False),
        ("60", "5", "-1s", False),
        ("60", "5", "nan", False),
        ("60", "5", "\u0661s", False),
    ],
)
def test_requests_count_only_where_they_are_back_within_a_minute(limit: str, left: str, reset: str, believed: bool) -> None:
    """A day's count under the name of a minute's is recognised by how long it takes to come back."""
    headers = {"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": left, "x-ratelimit-reset-requests": reset}
    assert remaining_of(headers).requests == (int(left) if believed else None)


@pytest.mark.parametrize(("reset", "tokens"), [("1m0s", 7), ("6m0s", None), ("23h", None), ("later", None)])
def test_tokens_that_take_longer_than_a_minute_do_not_count(reset: str, tokens: int | None) -> None:
    """They are of a longer window than ours."""
    assert remaining_of({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": reset}).tokens == tokens


@pytest.mark.parametrize(
    ("headers", "tokens"),
    [
        # Prompts and answers count apart; together they may take what both have left.
        ({"input-tokens": "300", "output-tokens": "20"}, 320),
        ({"input-tokens": "300", "output-tokens": "20", "tokens": "310"}, 310),
        ({"input-tokens": "300", "output-tokens": "20", "tokens": "999"}, 320),
        # One of them alone says nothing of the other, unless nothing is left of it.
        ({"input-tokens": "300"}, None),
        ({"output-tokens": "20"}, None),
        ({"input-tokens": "0"}, 0),
        ({"input-tokens": "300", "output-tokens": "0"}, 0),
        ({"input-tokens": "?", "output-tokens": "20", "tokens": "40"}, 40),
    ],
)
def test_separate_counts_of_tokens(headers: dict[str, str], tokens: int | None) -> None:
    """Two limits are no reason to lower the level of both to the smaller one."""
    assert remaining_of({f"anthropic-ratelimit-{unit}-remaining": text for unit, text in headers.items()}).tokens == tokens


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("007", 7),
        ("9999999999", 9_999_999_999),
        ("5, 3", 3),
        ("3, 5, 4", 3),
        *((text, None) for text in ("", " ", "-1", "+1", "1.0", "1e3", "1_000")),
        *((text, None) for text in ("1,000", "5,3", "5, ", ", 5", "5, x", "0x5", "inf", "\u0663", "²", "5\n", "5\x00")),
        *((text, None) for text in ("9" * 11, "9" * 256, "9" * 5000)),
    ],
)
def test_numbers(text: str, count: int | None) -> None:
    """Whole numbers of a sane size are read, the least of several; whatever else a header holds is as if it were not there."""
    headers = {"x-ratelimit-remaining-requests": text, "anthropic-ratelimit-tokens-remaining": text}
    assert remaining_of(headers) == Remaining(requests=count, tokens=count)


def test_the_least_of_two_shapes_counts() -> None:
    """A gateway before a provider may send its own beside the provider's."""
    assert remaining_of(OPENAI | ANTHROPIC) == Remaining(requests=999, tokens=96000)
    assert remaining_of(GROQ | ANTHROPIC) == Remaining(requests=999, tokens=17997)


class _Asked(dict[str, str]):
    """Headers that remember by which names they were asked."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Say something that leads on to further questions."""
        self.names.add(name)
        return "7" if "reset" not in name else "1s"


def test_what_is_wanted_is_what_is_read() -> None:
    """Every name that is carried is asked for, and no other; there is room for all of them in a report."""
    headers = _Asked()
    remaining_of(headers)
    assert headers.names == WANTED
    assert all(name == name.lower() for name in WANTED)
    assert len(WANTED) <= 32


texts = st.one_of(
    st.text(max_size=300),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.lists(st.sampled_from([*"0123456789 ,.:+-eE_", "ms", "s", "m", "h", "d", "\u0661", "²"]), max_size=14).map("".join),
)


@given(st.dictionaries(st.sampled_from([*sorted(WANTED), "x-ratelimit-remaining", "retry-after"]), texts))
def test_nothing_raises_and_nothing_is_negative(headers: dict[str, str]) -> None:
    """Whatever the values are, there is a count that a level can be lowered to, or none."""
    remaining = remaining_of(headers)
    for count in (remaining.requests, remaining.tokens):
        assert count is None or 0 <= count <= 2 * 9_999_999_999
