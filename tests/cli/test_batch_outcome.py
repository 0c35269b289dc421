"""Lines of a batch's output."""

import pytest

from services.cli.batch_line import prompt_of
from services.cli.batch_outcome import Kept, Outcome, Standing, is_torn, kept_from, line_of, standing_after
from services.cli.exit_codes import error_fields
from tests.support.batches import TEMPLATE

PROMPT = prompt_of('{"id": "é\u2028", "prompt": "p"}'.encode(), 1, TEMPLATE)
ANSWERED = line_of(PROMPT, Outcome(standing=Standing.ANSWERED, told={"answer": "x\ny", "response": {}}))


def _failed(code: str, reason: str = "", after: float | None = None) -> bytes:
    error = error_fields(code=code, message="m", reason=reason, retry_after_seconds=after)
    return line_of(PROMPT, Outcome(standing=standing_after(code, reason, retry_after_seconds=after), told={"error": error}))


def test_a_line_is_one_line_and_says_what_was_kept() -> None:
    """Whatever stands in it."""
    assert (ANSWERED.count(b"\n"), ANSWERED.isascii()) == (1, True)
    assert kept_from(ANSWERED) == Kept(id=PROMPT.id, sha256=PROMPT.sha256, standing=Standing.ANSWERED)


@pytest.mark.parametrize(
    ("code", "reason", "after", "standing"),
    [
        ("UNAVAILABLE", "", None, Standing.RETRY),
        ("DEADLINE_EXCEEDED", "", None, Standing.RETRY),
        ("CANCELLED", "", None, Standing.RETRY),
        ("RESOURCE_EXHAUSTED", "QUOTA_EXHAUSTED", 3600.0, Standing.RETRY),
        ("RESOURCE_EXHAUSTED", "QUOTA_EXHAUSTED", None, Standing.FAILED),
        ("RESOURCE_EXHAUSTED", "", None, Standing.FAILED),
        ("INVALID_ARGUMENT", "INVALID_INPUT", None, Standing.FAILED),
        ("INTERNAL", "", None, Standing.FAILED),
        ("UNAUTHENTICATED", "UNAUTHENTICATED", None, Standing.RETRY),
        ("FAILED_PRECONDITION", "NO_QUORUM", None, Standing.FAILED),
        ("FAILED_PRECONDITION", "NO_QUORUM", 1.0, Standing.RETRY),
    ],
)
def test_an_error_is_read_back_as_it_was(code: str, reason: str, after: float | None, standing: Standing) -> None:
    """So that the next run knows what may be asked again."""
    assert standing_after(code, reason, retry_after_seconds=after) is standing
    kept = kept_from(_failed(code, reason, after))
    assert kept is not None
    assert kept.standing is standing


def test_every_beginning_of_a_line_is_torn() -> None:
    """Also the one that lacks nothing but its end."""
    for line in (ANSWERED, _failed("UNAVAILABLE")):
        for length in range(1, len(line)):
            assert kept_from(line[:length]) is None
            assert is_torn(line[:length])
        assert not is_torn(line)


def test_zeros_that_a_crash_left_are_torn() -> None:
    """With an end or without."""
    for line in (b"\0\0\0", b"\0\0\n", ANSWERED[:9] + b"\0\0\n", ANSWERED[:9] + b"\0"):
        assert kept_from(line) is None
        assert is_torn(line)


@pytest.mark.parametrize(
    "line", [b'{"id": "a", "prompt": "p"}', b'{"id": "a", "prompt": "p"}\n', b"notes", b"notes\n", b"[]", b"\n", b"notes\0", b'{"id": 1}\n']
)
def test_what_is_somebody_elses_is_neither(line: bytes) -> None:
    """It must not be cut off as if it were ours."""
    assert kept_from(line) is None
    assert not is_torn(line)
