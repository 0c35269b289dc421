"""Asks the prompts of a batch: so many at once, each as often as patience has it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import grpc
from google.protobuf.json_format import MessageToDict

from ensemble.v1 import gateway_service_pb2
from services.cli.batch_line import Prompt
from services.cli.batch_outcome import Outcome, Standing, standing_after
from services.cli.batch_retry import Patience
from services.cli.connection import Connection
from services.cli.exit_codes import CommandError
from services.cli.gateway_client import GatewayClient, Trace
from services.cli.rpc_errors import CallFailed, failure_of

Ask = Callable[[Prompt], Awaitable[Outcome]]
Keep = Callable[[Prompt, Outcome], Awaitable[None]]


async def ask_all(prompts: Iterator[Prompt], ask: Ask, keep: Keep, *, concurrency: int) -> None:
    """Ask every prompt and keep how it ended, in the order of the ends; what cannot be kept ends it all. Raises `CommandError`."""

    async def one_after_another() -> None:
        # All take from the same prompts, so that none is read before somebody can ask it.
        for prompt in prompts:
            await keep(prompt, await ask(prompt))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(one_after_another())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def ask_gateway(prompt: Prompt, client: GatewayClient, *, connection: Connection, timeout: float, patience: Patience) -> Outcome:
    """Ask one prompt, each time in a trace of its own, until it is answered or no more may be hoped for.

    Raises `CallFailed` where the gateway cannot be reached or does not know who asks: that says nothing of the prompt, and the others would fare no better.
    """
    attempts, waited = 0, 0.0
    while True:
        traced = replace(client, trace=Trace.begun())
        try:
            return _outcome(await traced.generate(prompt.request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
        attempts += 1
        wait = patience.wait_seconds(failure, attempts=attempts, waited_seconds=waited)
        if wait is None:
            failed = CallFailed(failure, connection=connection, trace_id=traced.trace.trace_id)
            if failure.code == "UNAUTHENTICATED" or (failure.code == "UNAVAILABLE" and not failure.reason):
                raise failed
            standing = standing_after(failure.code, failure.reason, retry_after_seconds=failure.retry_after_seconds)
            return Outcome(standing=standing, told=failed.as_json())
        await asyncio.sleep(wait)
        waited += wait


def _outcome(response: gateway_service_pb2.GenerateResponse) -> Outcome:
    cost = response.receipt.cost.micro_usd
    if not response.answer:
        return Outcome(standing=Standing.FAILED, told=CommandError("the answer is empty").as_json(), cost_micro_usd=cost)
    told = MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return Outcome(standing=Standing.ANSWERED, told={"answer": response.answer, "response": told}, cost_micro_usd=cost)
