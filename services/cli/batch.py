"""`ensemble batch`: asks many prompts and keeps every answer as it comes; run again, it goes on where it was."""

import hashlib
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from services.cli.batch_input import BatchInput
from services.cli.batch_line import Prompt
from services.cli.batch_outcome import Outcome, Standing, line_of
from services.cli.batch_output import BatchOutput, output_at
from services.cli.batch_progress import BatchProgress
from services.cli.batch_retry import Patience
from services.cli.batch_run import Ask, ask_all, ask_gateway
from services.cli.batch_tally import BatchInterrupted, BatchStopped, Tally
from services.cli.ending import print_json
from services.cli.exit_codes import ExitCode
from services.cli.gateway_client import gateway_at
from services.cli.question import Question
from services.cli.receipt_table import plain
from services.cli.rpc_errors import CallFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What shall be asked, and where the answers go."""

    source: Path
    output: Path
    template: Question
    """What holds for every line that does not say otherwise."""
    concurrency: int
    attempts: int
    force: bool
    as_json: bool


def run_batch(batch: Batch, run: Callable[[Coroutine[Any, Any, None]], None]) -> ExitCode:
    """Read, ask, keep, and return how the command ends. Raises `CommandError`.

    What reads and writes whole files happens outside the loop, where Ctrl-C ends it at once.
    """
    prompts = BatchInput.read(batch.source, batch.template)
    with output_at(batch.output, prompts, force=batch.force) as output:
        tally = Tally(total=len(prompts), skipped=output.count(Standing.ANSWERED), failed_before=output.count(Standing.FAILED))
        try:
            with BatchProgress(tally, None if batch.as_json else Console(stderr=True, highlight=False)) as progress:
                run(_through_gateway(batch, prompts, output, tally, progress))
        except KeyboardInterrupt:
            raise BatchInterrupted(tally) from None
        except CallFailed as failed:
            raise BatchStopped(tally, failed) from None
        output.compact()
    if batch.as_json:
        print_json(tally.as_json())
    elif lost := tally.failed_before + tally.failed:
        said = f"{lost} failed for good; why stands in {batch.output}. The same command does not ask them again, --force starts over with all"
        Console(stderr=True, highlight=False).print(plain(said), soft_wrap=True)
    return tally.exit_code


async def answer_all(prompts: BatchInput, output: BatchOutput, ask: Ask, *, concurrency: int, kept: Callable[[Outcome], None]) -> None:
    """Ask what is not answered yet and keep each outcome before it is counted. Raises `CommandError`."""

    async def keep(prompt: Prompt, outcome: Outcome) -> None:
        output.append(prompts.places[prompt.id], line_of(prompt, outcome), outcome.standing)
        kept(outcome)
        await output.settle()

    with closing(prompts.prompts(output.wanted)) as wanted:
        await ask_all(wanted, ask, keep, concurrency=concurrency)


async def _through_gateway(batch: Batch, prompts: BatchInput, output: BatchOutput, tally: Tally, progress: BatchProgress) -> None:
    template = batch.template
    patience = Patience(attempts=batch.attempts)
    # Who starts over wants answers anew, not those that the gateway still has under the ids of the run before.
    afresh = uuid4().hex if batch.force else ""
    async with gateway_at(template.gateway) as client:

        async def ask(prompt: Prompt) -> Outcome:
            if afresh:
                prompt.request.request_id = hashlib.sha256(f"{afresh}{prompt.request.request_id}".encode()).hexdigest()
            return await ask_gateway(prompt, client, connection=template.gateway, timeout=template.timeout_seconds, patience=patience)

        def kept(outcome: Outcome) -> None:
            tally.add(outcome)
            progress.show()

        await answer_all(prompts, output, ask, concurrency=batch.concurrency, kept=kept)
