"""What is asked: from the command line's words to a request."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from google.protobuf.json_format import ParseDict

from ensemble.v1 import gateway_service_pb2, member_pb2
from services.cli.connection import Connection
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.gateway_client import MAX_MESSAGE_BYTES
from services.models.refinement import MOST_SCHEMA_BYTES

_WRAPPING_BYTES = 4096
"""What the wire and the gateway add to a request, generously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What shall be asked, and how."""

    prompt: str
    gateway: Connection
    timeout_seconds: float
    profile: str = ""
    strategy: str = ""
    system: str = ""
    members: tuple[str, ...] = ()
    quorum: int | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    candidates: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Options that the strategy alone understands."""
    response_schema: str = ""
    """JSON Schema that the answer shall satisfy, as JSON text."""
    max_cost_usd: float | None = None
    hedge_delay_seconds: float | None = None
    retries: int | None = None
    """How often a failed call is made again."""

    def request(self) -> gateway_service_pb2.GenerateRequest:
        """Return the request; what was not said is left to the profile, and what is too much of anything to the gateway.

        Raises `CommandError` for what no request can hold.
        """
        for name, text in self._texts():
            _check_unicode(name, text)
        request = gateway_service_pb2.GenerateRequest(
            prompt=self.prompt,
            profile=self.profile,
            strategy=self.strategy,
            system=self.system,
            include_candidates=self.candidates,
            members=[member_pb2.Member(model=model) for model in self.members],
            max_cost_micro_usd=None if self.max_cost_usd is None else int(Decimal(repr(self.max_cost_usd)) * 1_000_000),
            response_schema=self.response_schema,
        )
        if self.parameters:
            ParseDict(dict(self.parameters), request.options.parameters)
        if self.hedge_delay_seconds is not None:
            request.options.hedge.delay.FromNanoseconds(round(self.hedge_delay_seconds * 1e9))
        if self.retries is not None:
            request.options.retry.max_attempts = self.retries + 1
        if self.temperature is not None:
            request.generation.temperature = self.temperature
        try:
            if self.quorum is not None:
                request.options.quorum = self.quorum
            if self.max_output_tokens is not None:
                request.generation.max_output_tokens = self.max_output_tokens
        except ValueError:
            raise CommandError("--quorum or --max-output-tokens is out of range", ExitCode.WRONG) from None
        if request.ByteSize() > MAX_MESSAGE_BYTES - _WRAPPING_BYTES:
            raise _too_long()
        return request

    def _texts(self) -> Iterator[tuple[str, str]]:
        yield "the prompt", self.prompt
        yield "--profile", self.profile
        yield "--strategy", self.strategy
        yield "--system", self.system
        yield from (("--member", model) for model in self.members)


def prompt_from(argument: str | None, file: Path | None) -> str:
    """Return the prompt from exactly one of the argument, the file, or standard input ("-"). Raises `CommandError`."""
    if (argument is None) == (file is None):
        raise CommandError('give a prompt, or --file FILE, or "-" for standard input', ExitCode.WRONG)
    if file is None and argument != "-":
        return argument or ""
    try:
        content = _standard_input() if file is None else _content_of(file, MAX_MESSAGE_BYTES)
    except OSError as error:
        raise CommandError(f"{file or 'standard input'}: {error.strerror}", ExitCode.WRONG) from None
    if len(content) > MAX_MESSAGE_BYTES:
        raise _too_long()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"the prompt is not UTF-8 (byte {error.start})", ExitCode.WRONG) from None


def schema_from(file: Path) -> str:
    """Return a JSON Schema as it stands in a file; whether it is one is the gateway's to say. Raises `CommandError`."""
    try:
        content = _content_of(file, MOST_SCHEMA_BYTES)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"--schema {file}: {error.strerror}", ExitCode.WRONG) from None
    except UnicodeDecodeError as error:
        raise CommandError(f"--schema {file}: is not UTF-8 (byte {error.start})", ExitCode.WRONG) from None
    if len(content) > MOST_SCHEMA_BYTES:
        raise CommandError(f"--schema {file}: is larger than {MOST_SCHEMA_BYTES >> 10} KiB", ExitCode.WRONG)
    if not text.strip():
        raise CommandError(f"--schema {file}: is empty", ExitCode.WRONG)
    return text


# None reads without end: what is larger than any message is refused, not held.


def _standard_input() -> bytes:
    if getattr(sys, "stdin", None) is None:
        raise CommandError("standard input is closed", ExitCode.WRONG)
    return sys.stdin.buffer.read(MAX_MESSAGE_BYTES + 1)


def _content_of(file: Path, most_bytes: int) -> bytes:
    """Return a file's content, of one that is too large a byte more than is allowed."""
    with file.open("rb") as opened:
        return opened.read(most_bytes + 1)


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CommandError(f"{name} is not valid Unicode", ExitCode.WRONG) from None


def _too_long() -> CommandError:
    return CommandError(f"the request is longer than a message may be ({MAX_MESSAGE_BYTES >> 20} MiB)", ExitCode.WRONG)
