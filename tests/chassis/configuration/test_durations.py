"""Durations as text and as seconds."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.chassis.configuration.durations import format_duration, parse_duration

written = st.builds(
    lambda number, decimals, unit: f"{number}{'.' + decimals if decimals else ''}{unit}",
    st.integers(0, 9_999_999),
    st.from_regex(r"[0-9]{0,3}", fullmatch=True).filter(str.isascii),
    st.sampled_from(["ms", "s", "m", "h"]),
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("60s", 60.0), ("10m", 600.0), ("1h", 3600.0), ("1.5h", 5400.0), ("0s", 0.0), ("0.1s", 0.1), ("0.001ms", 1e-6)]
)
def test_each_unit_is_read(text: str, seconds: float) -> None:
    """A number and a unit mean seconds, exactly."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "60", "s", "-1s", "+1s", "1 s", "1d", "1S", "1.s", ".5s", "1.2345s", "1e3s", "1234567890s", "1m30s", "٣s", "1s\n", "nan", "infs"]
)
def test_any_other_text_is_refused(text: str) -> None:
    """There is one way to write a duration; what is near it is refused rather than guessed."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (0.5, "500ms"), (60.0, "1m"), (90.0, "90s"), (3600.0, "1h"), (5400.0, "90m"), (1.001, "1001ms"), (1e-6, "0.001ms")]
)
def test_seconds_are_written_without_decimals_where_a_unit_allows_it(seconds: float, text: str) -> None:
    """The largest unit that needs no decimals is taken."""
    assert format_duration(seconds) == text


@given(written)
def test_what_was_read_is_written_so_that_it_reads_the_same(text: str) -> None:
    """Up to the day that is the most any setting takes, reading and writing are exact in both directions."""
    seconds = parse_duration(text)
    assume(seconds <= 86_400)
    assert parse_duration(format_duration(seconds)) == seconds


@given(written, written)
def test_the_order_of_lengths_survives_reading(one: str, other: str) -> None:
    """A duration in the same unit with the greater number is not shorter."""
    unit = one.lstrip("0123456789.")
    first, second = (float(each.rstrip("msh")) for each in (one, other))
    longer, shorter = max(first, second), min(first, second)
    assert parse_duration(f"{longer:.3f}{unit}") >= parse_duration(f"{shorter:.3f}{unit}")
