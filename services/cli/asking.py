"""`ensemble ask`: asks the gateway, for a person or for a script."""

import sys

from google.protobuf.json_format import MessageToDict
from rich.console import Console

from ensemble.v1 import gateway_service_pb2
from services.cli.ending import print_json
from services.cli.exit_codes import CommandError
from services.cli.gateway_client import gateway_at
from services.cli.output_file import OutputFile
from services.cli.progress import Progress
from services.cli.question import Question
from services.cli.receipt_table import plain, print_receipt


async def ask_for_a_person(question: Question, output: OutputFile | None = None, *, console: Console | None = None) -> None:
    """Ask with live progress; the answer goes to standard output, everything else to standard error. Raises `CommandError`."""
    console = console or Console(stderr=True, highlight=False)
    final: gateway_service_pb2.GenerateResponse | None = None
    request = question.request()
    async with gateway_at(question.gateway) as client:
        with Progress(console, sys.stdout) as progress:
            async for event in client.stream(request, timeout=question.timeout_seconds):
                progress.show(event)
                if event.HasField("run_finished"):
                    final = event.run_finished
    answered = _answered(final)
    try:
        if output is not None:
            output.write(answered.answer)
    finally:
        # The answer is paid for, whether or not it fits on the disk.
        if question.candidates:
            _print_candidates(console, answered)
        print_receipt(console, answered)


async def ask_for_a_script(question: Question, output: OutputFile | None = None) -> None:
    """Ask and print the whole response as one JSON object. Raises `CommandError`.

    Where the answer is there but its file cannot be written, the object is the error with the response beside it.
    """
    request = question.request()
    async with gateway_at(question.gateway) as client:
        response = _answered(await client.generate(request, timeout=question.timeout_seconds))
    told = MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    try:
        if output is not None:
            output.write(response.answer)
    except CommandError as error:
        raise _UnwrittenError(error, told) from None
    print_json(told)


class _UnwrittenError(CommandError):
    """The answer came, but its file could not be written."""

    def __init__(self, error: CommandError, response: dict[str, object]) -> None:
        super().__init__(str(error), error.code)
        self._response = response

    def as_json(self) -> dict[str, object]:
        """Return both, because the answer is paid for."""
        return {**super().as_json(), "response": self._response}


def _answered(response: gateway_service_pb2.GenerateResponse | None) -> gateway_service_pb2.GenerateResponse:
    if response is None:
        raise CommandError("the gateway ended the stream without an answer")
    if not response.answer:
        raise CommandError("the answer is empty")
    return response


def _print_candidates(console: Console, response: gateway_service_pb2.GenerateResponse) -> None:
    for candidate in response.candidates:
        console.rule(plain(candidate.candidate_id))
        console.print(plain(candidate.text or "(no text)"), soft_wrap=True)
