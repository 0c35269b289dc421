"""Exit codes of `ensemble`, for scripts.

0    it worked
1    it failed: a bug, a model that could not be asked, a service that is not what it should be
2    the command line, the configuration or the request is wrong; repeating it changes nothing
3    not available now: a service cannot be reached, or too few members answered; a retry can help
4    the deadline passed
130  interrupted
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    WRONG = 2
    UNAVAILABLE = 3
    DEADLINE = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what it was asked; the text is for the person who asked."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
