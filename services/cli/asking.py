"""`ensemble ask`: from the command line's words to an answer."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.json_format import MessageToDict
from rich.console import Console

from ensemble.v1 import gateway_service_pb2, member_pb2
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.gateway_client import ask, ask_stream, gateway_at
from services.cli.output_file import OutputFile
from services.cli.progress import Progress
from services.cli.receipt_table import print_receipt
from services.cli.rpc_errors import failure_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What shall be asked, and how."""

    prompt: str
    gateway: str
    timeout_seconds: float
    profile: str = ""
    strategy: str = ""
    system: str = ""
    members: tuple[str, ...] = ()
    quorum: int | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    candidates: bool = False

    def request(self) -> gateway_service_pb2.GenerateRequest:
        """Return the request; what was not said is left to the profile."""
        request = gateway_service_pb2.GenerateRequest(
            prompt=self.prompt,
            profile=self.profile,
            strategy=self.strategy,
            system=self.system,
            include_candidates=self.candidates,
            members=[member_pb2.Member(model=model) for model in self.members],
        )
        if self.quorum is not None:
            request.options.quorum = self.quorum
        if self.temperature is not None:
            request.generation.temperature = self.temperature
        if self.max_output_tokens is not None:
            request.generation.max_output_tokens = self.max_output_tokens
        return request


def prompt_from(argument: str | None, file: Path | None) -> str:
    """Return the prompt from exactly one of the argument, the file, or standard input ("-"). Raises `CommandError`."""
    if (argument is None) == (file is None):
        raise CommandError('give a prompt, or --file FILE, or "-" for standard input', ExitCode.WRONG)
    try:
        if file is not None:
            return file.read_bytes().decode()
        return sys.stdin.buffer.read().decode() if argument == "-" else argument or ""
    except UnicodeDecodeError as error:
        raise CommandError(f"the prompt is not UTF-8 (byte {error.start})", ExitCode.WRONG) from None
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitCode.WRONG) from None


async def ask_for_a_person(question: Question, output: OutputFile | None, *, console: Console | None = None) -> ExitCode:
    """Ask with live progress; the answer goes to standard output, everything else to standard error."""
    console = console or Console(stderr=True)
    final: gateway_service_pb2.GenerateResponse | None = None
    try:
        async with gateway_at(question.gateway) as stub:
            with Progress(console, sys.stdout) as progress:
                async for event in ask_stream(stub, question.request(), timeout=question.timeout_seconds):
                    progress.show(event)
                    if event.HasField("run_finished"):
                        final = event.run_finished
    except grpc.aio.AioRpcError as error:
        failure = failure_of(error)
        for line in failure.lines():
            console.print(line, style="red", markup=False, highlight=False)
        return failure.exit_code
    if final is None:
        raise CommandError("the gateway ended the stream without an answer")
    if output is not None:
        output.write(final.answer)
    if question.candidates:
        for candidate in final.candidates:
            console.rule(candidate.candidate_id)
            console.print(candidate.text, markup=False, highlight=False)
    print_receipt(console, final)
    return ExitCode.OK


async def ask_for_a_script(question: Question, output: OutputFile | None) -> ExitCode:
    """Ask and print one JSON object: the whole response, or {"error": …}."""
    try:
        async with gateway_at(question.gateway) as stub:
            response = await ask(stub, question.request(), timeout=question.timeout_seconds)
    except grpc.aio.AioRpcError as error:
        failure = failure_of(error)
        print_json(failure.as_json())
        return failure.exit_code
    if output is not None:
        output.write(response.answer)
    print_json(MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    return ExitCode.OK


def print_json(value: object) -> None:
    """Print one JSON object; in ASCII, so that any encoding of standard output carries it."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
