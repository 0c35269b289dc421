"""How one prompt of a batch ended, and the line that says so, there and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from services.cli.batch_line import Prompt
from services.cli.exit_codes import ExitCode
from services.cli.rpc_errors import RpcFailure

_HEAD = b'{"id": '
"""What every line begins with."""


class Standing(IntEnum):
    """What is known of a prompt."""

    OPEN = 0
    """It was not asked, or nobody knows how that ended."""
    ANSWERED = 1
    FAILED = 2
    """For good: asking again would change nothing."""
    RETRY = 3
    """It failed, and asking again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a prompt ended."""

    standing: Standing
    told: Mapping[str, Any] = field(default_factory=dict)
    """Answer and response, or the error."""
    cost_micro_usd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a line of the output says of its prompt."""

    id: str
    sha256: str
    standing: Standing


def line_of(prompt: Prompt, outcome: Outcome) -> bytes:
    """Return the whole line, in ASCII, with its end."""
    told = {"id": prompt.id, "ok": outcome.standing is Standing.ANSWERED, "sha256": prompt.sha256, **outcome.told}
    return json.dumps(told).encode() + b"\n"


def kept_from(line: bytes) -> Kept | None:
    """Return what a line says; None where it is not a whole line of a batch's output."""
    if not line.endswith(b"\n"):
        return None
    match _read(line):
        case {"id": str(name), "ok": True, "sha256": str(sha256)}:
            return Kept(id=name, sha256=sha256, standing=Standing.ANSWERED)
        case {"id": str(name), "ok": False, "sha256": str(sha256), "error": {"code": str(code), "reason": str(reason), "retry_after_seconds": after}}:
            return Kept(id=name, sha256=sha256, standing=standing_after(code, reason, retry_after_seconds=after))
    return None


def is_torn(line: bytes) -> bool:
    """Return whether a last line is one that was not written to its end: cut off, or with the zeros that a crash of the machine leaves.

    Anything else is somebody's own, and must not be thrown away as a piece of ours.
    """
    if b"\0" in line:
        return line.startswith(_HEAD) or not line.strip(b"\0\n")
    return not line.endswith(b"\n") and (line.startswith(_HEAD) or _HEAD.startswith(line)) and (kept_from(line + b"\n") is not None or _read(line) is None)


def standing_after(code: str, reason: str, *, retry_after_seconds: float | None) -> Standing:
    """Return where a prompt stands after an error; a key that was not valid is no fault of the prompt's."""
    may_help = retry_after_seconds is not None or code == "UNAUTHENTICATED" or _exit_code(code, reason) in {ExitCode.UNAVAILABLE, ExitCode.DEADLINE}
    return Standing.RETRY if may_help else Standing.FAILED


def _exit_code(code: str, reason: str) -> ExitCode:
    return RpcFailure(code=code, message="", reason=reason).exit_code


def _read(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
