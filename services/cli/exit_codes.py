"""How `ensemble` ends: exit codes for scripts, and what a failed command says.

0    it worked
1    it failed: a bug, a model that could not be asked, a request beyond what the quota ever allows, a service that is not what it should be, an output that
     cannot be written
2    the command line, the configuration or the request is wrong; repeating it changes nothing
3    not available now: a service cannot be reached, too few members answered, or the quota is used up; a retry can help
4    the deadline passed
130  interrupted (Ctrl-C)
143  terminated (SIGTERM)

Of a batch, 1 says that some prompts failed for good, and 3 that some failed and another run may help.

With --json a command prints one JSON object on standard output, also where it fails:

    {"error": {"code", "message", "reason", "metadata", "violations", "retry_after_seconds", "trace_id"}}

`code` is the gRPC status of a call that failed, else the name of the exit code; `violations` are descriptions by the path of a field or the name of a limit.
Two things are told on standard error instead: a command line that cannot be parsed, and a bug.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    WRONG = 2
    UNAVAILABLE = 3
    DEADLINE = 4
    INTERRUPTED = 130
    TERMINATED = 143


class CommandError(Exception):
    """A command cannot do what it was asked; the text is for the person who asked."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, *, violations: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.violations = dict(violations or {})
        """What is wrong, by the path of a field or setting."""

    def lines(self) -> list[str]:
        """Return it in words for a person."""
        return str(self).splitlines()

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts, in the shape above."""
        return {"error": error_fields(code=self.code.name, message=str(self), violations=self.violations)}


def by_path(violations: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return descriptions by their paths; several of one path are joined."""
    joined: dict[str, str] = {}
    for path, description in violations:
        joined[path] = f"{joined[path]}; {description}" if path in joined else description
    return joined


def error_fields(
    *,
    code: str,
    message: str,
    reason: str = "",
    metadata: Mapping[str, str] | None = None,
    violations: Mapping[str, str] | None = None,
    retry_after_seconds: float | None = None,
    trace_id: str = "",
) -> dict[str, Any]:
    """Return every field of an error, those that say nothing included."""
    return {
        "code": code,
        "message": message,
        "reason": reason,
        "metadata": dict(metadata or {}),
        "violations": dict(violations or {}),
        "retry_after_seconds": retry_after_seconds,
        "trace_id": trace_id,
    }
