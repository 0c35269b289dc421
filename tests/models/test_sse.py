"""Server-sent events: the same events however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.sse import Event, EventTooLongError, SseDecoder

lines = st.lists(
    st.one_of(
        st.sampled_from([b"", b"", b"data: x", b"data:y", b"data: ", b": c", b"event: error", b"event:", b"retry: 5", b"id: 1", b"data", b"odd"]),
        st.binary(max_size=8),
    ),
    max_size=14,
)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


def _decode(data: bytes, cuts: list[int], *, limit: int = 10_000) -> list[Event]:
    decoder = SseDecoder(event_limit=limit)
    events: list[Event] = []
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(borders):
        events += decoder.feed(data[start:end])
    return [*events, *decoder.finish()]


@given(lines, ends, st.lists(st.integers(0, 10_000), max_size=8), st.booleans())
def test_cuts_do_not_matter(parts: list[bytes], end: bytes, cuts: list[int], mark: bool) -> None:
    """Any way of cutting the bytes gives the events of the whole."""
    data = (b"\xef\xbb\xbf" if mark else b"") + end.join(parts)
    assert _decode(data, cuts) == _decode(data, [])


def test_fields() -> None:
    """Data lines join, the name belongs to one event, what means nothing is skipped."""
    data = b"\xef\xbb\xbfevent: error\ndata: a\ndata:b\n\nretry: 1\nid: 2\n: note\n\ndata: c\n\ndata:\n\ndata: : keepalive\n\ndata: d"
    assert _decode(data, []) == [Event("error", "a\nb"), Event("", "c"), Event("", "d")]


def test_bad_bytes_are_replaced() -> None:
    """A byte that is no UTF-8 becomes U+FFFD; the stream goes on."""
    assert _decode(b"data: a\xffb\n\ndata: c\n\n", []) == [Event("", "a\ufffdb"), Event("", "c")]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 200, b"data: xxxxxxxxxx\n" * 20, b"x" * 200])
def test_an_endless_event_is_refused(data: bytes) -> None:
    """Neither one line nor many lines of one event may outgrow the bound."""
    with pytest.raises(EventTooLongError):
        _decode(data, [50], limit=100)


def test_one_long_line_in_many_pieces() -> None:
    """A line is searched for its end once, not anew with each of its pieces: that would hold up everything else for minutes."""
    text = "x" * 5_000_000
    data = f"data: {text}\r\n\r\n".encode()
    assert _decode(data, list(range(0, len(data), 1000)), limit=6_000_000) == [Event("", text)]


@pytest.mark.parametrize("mark", [b"\xef", b"\xef\xbb", b"\xef\xbb\xbf"])
def test_a_stream_of_nothing_but_a_mark(mark: bytes) -> None:
    """A byte order mark alone, or a part of one, is no event."""
    assert _decode(mark, []) == []
