"""What is told of an error that nobody foresaw."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from services.chassis.bugs import place_of, tell_bugs

SECRET = "a secret of the error"


@pytest.fixture(autouse=True)
def _hooks_as_before() -> Iterator[None]:
    """Put back what heard of bugs."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    tell_bugs()
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def _raise(kind: type[BaseException]) -> None:
    raise kind(SECRET)


def _raised(kind: type[BaseException]) -> BaseException:
    try:
        _raise(kind)
    except BaseException as error:  # noqa: BLE001 - it is what the test is about
        return error
    raise AssertionError


def test_the_place_is_that_of_the_innermost_frames() -> None:
    """Names of files and lines, none of the folders they are in; nothing where there is no traceback."""
    outer, inner = place_of(_raised(ValueError).__traceback__).split()
    assert outer.startswith("test_bugs.py:")
    assert inner.startswith("test_bugs.py:")
    assert place_of(None) == ""


def test_the_end_of_a_process_is_told_without_its_words(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Kind and place in the log, and nothing on standard error."""
    error = _raised(ValueError)
    sys.excepthook(type(error), error, error.__traceback__)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "the process ends because of an error that nobody foresaw: ValueError")
    assert record.exc_info is None
    assert "test_bugs.py:" in vars(record)["where"]
    assert SECRET not in repr(vars(record))
    assert capsys.readouterr().err == ""


def test_an_interruption_ends_the_process_as_ever(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no bug."""
    error = KeyboardInterrupt()
    sys.excepthook(KeyboardInterrupt, error, None)
    assert caplog.records == []
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_the_end_of_a_thread_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    """One that leaves by SystemExit has not failed."""
    for kind in (ValueError, SystemExit):
        thread = threading.Thread(target=_raise, args=(kind,))
        thread.start()
        thread.join()
    (record,) = caplog.records
    assert record.getMessage() == "a thread has ended because of an error that nobody foresaw: ValueError"
    assert SECRET not in repr(vars(record))


def test_an_error_in_a_destructor_is_told_without_its_words(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody else hears of it."""

    class Destroyed:
        def __del__(self) -> None:
            _raise(ValueError)

    Destroyed()
    (record,) = caplog.records
    assert record.getMessage() == "an error came up where nobody could be told: ValueError"
    assert SECRET not in repr(vars(record))
    assert capsys.readouterr().err == ""
