"""Errors that nobody foresaw: what may be told of one is its kind and its place, for its text may hold a prompt or a secret."""

import logging
import sys
import threading
from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType

_log = logging.getLogger(__name__)
_PLACES = 3


def place_of(traceback: TracebackType | None) -> str:
    """Return where an error came up: the last few files with their lines, the innermost last."""
    places = [f"{PurePath(frame.f_code.co_filename).name}:{line}" for frame, line in walk_tb(traceback)]
    return " ".join(places[-_PLACES:])


def tell_bugs() -> None:
    """Have the log, instead of Python's own traceback, say what ended this process or a thread of it, or came up where nobody could be told.

    It holds for the process from then on; logs must be set up.
    """
    sys.excepthook = _ended
    threading.excepthook = _thread_ended
    sys.unraisablehook = _untold


def _ended(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        _tell("the process ends because of an error that nobody foresaw", kind, traceback)


def _thread_ended(arguments: threading.ExceptHookArgs) -> None:
    if not issubclass(arguments.exc_type, SystemExit):
        _tell("a thread has ended because of an error that nobody foresaw", arguments.exc_type, arguments.exc_traceback)


def _untold(arguments: "sys.UnraisableHookArgs") -> None:
    _tell("an error came up where nobody could be told", arguments.exc_type, arguments.exc_traceback)


def _tell(what: str, kind: type[BaseException], traceback: TracebackType | None) -> None:
    _log.error("%s: %s", what, kind.__name__, extra={"where": place_of(traceback)})
