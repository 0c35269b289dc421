"""A batch's questions, asked in this process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.cli.batch import answer_all
from services.cli.batch_input import BatchInput
from services.cli.batch_line import Prompt, prompt_of
from services.cli.batch_outcome import Outcome, Standing, line_of
from services.cli.batch_output import output_at
from services.cli.batch_retry import Patience
from services.cli.batch_run import ask_all, ask_gateway
from services.cli.connection import Connection
from services.cli.exit_codes import CommandError, error_fields
from services.cli.gateway_client import gateway_at
from tests.support.batches import TEMPLATE, batch_of, kept_ids, names_in, numbered
from tests.support.fake_batch_gateway import COST_MICRO_USD, FakeBatchGateway, fake_batch_gateway
from tests.support.fake_gateway import details

PROMPT = prompt_of(b'{"prompt": "p"}', 1, TEMPLATE)
IN_A_MOMENT = details(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000)), reason="NO_QUORUM")
COUNT = 6


@pytest.fixture
async def gateway() -> AsyncIterator[FakeBatchGateway]:
    """Run a gateway."""
    async with fake_batch_gateway() as running:
        yield running


async def _asked(gateway: FakeBatchGateway, *, attempts: int = 3, timeout: float = 30) -> Outcome:
    async with gateway_at(Connection(address=gateway.address)) as client:
        return await ask_gateway(PROMPT, client, connection=Connection(address=gateway.address), timeout=timeout, patience=Patience(attempts=attempts))


async def test_what_is_busy_is_asked_again_under_the_same_id_in_another_trace(gateway: FakeBatchGateway) -> None:
    """Until it answers; what it costs is counted."""
    gateway.refusals = {"p": [(grpc.StatusCode.UNAVAILABLE, "busy", IN_A_MOMENT)] * 2}
    outcome = await _asked(gateway)
    assert (outcome.standing, outcome.told["answer"], outcome.cost_micro_usd) == (Standing.ANSWERED, "p!", COST_MICRO_USD)
    assert [request.request_id for request in gateway.requests] == [PROMPT.request.request_id] * 3
    assert len(set(gateway.traceparents)) == 3


async def test_a_quota_is_waited_for_where_it_says_how_long(gateway: FakeBatchGateway) -> None:
    """Come back later; without a time the request is beyond the quota for good."""
    quota = error_details_pb2.QuotaFailure(violations=[{"subject": "tenant/t/requests_per_minute", "description": "is reached"}])
    soon = details(quota, error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000)), reason="QUOTA_EXHAUSTED")
    gateway.refusals = {"p": [(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", soon)]}
    assert (await _asked(gateway)).standing is Standing.ANSWERED
    gateway.refusals = {"p": [(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", details(quota, reason="QUOTA_EXHAUSTED"))]}
    outcome = await _asked(gateway)
    assert outcome.standing is Standing.FAILED
    assert outcome.told["error"]["violations"] == {"tenant/t/requests_per_minute": "is reached"}
    assert len(gateway.requests) == 3


async def test_the_last_error_is_told_with_its_trace(gateway: FakeBatchGateway) -> None:
    """After as many attempts as there may be."""
    gateway.refusals = {"p": [(grpc.StatusCode.UNAVAILABLE, f"busy {number}", IN_A_MOMENT) for number in range(3)]}
    outcome = await _asked(gateway, attempts=2)
    error = outcome.told["error"]
    assert (outcome.standing, error["message"], error["trace_id"]) == (Standing.RETRY, "busy 1", gateway.traceparents[-1].split("-")[1])
    assert len(gateway.requests) == 2


async def test_what_is_wrong_or_late_is_asked_once(gateway: FakeBatchGateway) -> None:
    """And stands as what it is."""
    gateway.refusals = {"p": [(grpc.StatusCode.NOT_FOUND, "unknown", b"")]}
    assert (await _asked(gateway)).standing is Standing.FAILED
    gateway.held = {"p"}
    outcome = await _asked(gateway, timeout=0.2)
    assert (outcome.standing, outcome.told["error"]["code"], len(gateway.requests)) == (Standing.RETRY, "DEADLINE_EXCEEDED", 2)


async def test_what_cannot_be_kept_ends_the_batch(tmp_path: Path) -> None:
    """The others are cancelled; nothing more is asked and paid for."""
    asked: list[str] = []
    cancelled: list[str] = []

    async def ask(prompt: Prompt) -> Outcome:
        asked.append(prompt.id)
        if prompt.id != "a0":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(prompt.id)
                raise
        return Outcome(standing=Standing.ANSWERED)

    async def keep(prompt: Prompt, outcome: Outcome) -> None:
        raise CommandError("the disk is full")

    batch = batch_of(tmp_path / "in", numbered(9))
    with pytest.raises(CommandError, match="the disk is full"):
        await ask_all(batch.prompts(lambda _: True), ask, keep, concurrency=3)
    assert (asked, sorted(cancelled)) == (["a0", "a1", "a2"], ["a1", "a2"])


def _outcome(prompt: Prompt) -> Outcome:
    """Return what always comes of a prompt: one fails for good."""
    if prompt.id == "a2":
        return Outcome(standing=Standing.FAILED, told={"error": error_fields(code="INTERNAL", message="m")})
    return Outcome(standing=Standing.ANSWERED, told={"answer": f"{prompt.id}\n", "response": {"candidates": [1, 2]}})


def _run(batch: BatchInput, path: Path, concurrency: int) -> list[str]:
    """Run to the end; return what was asked."""
    asked: list[str] = []

    async def ask(prompt: Prompt) -> Outcome:
        asked.append(prompt.id)
        for _ in range(len(asked) % 3):
            await asyncio.sleep(0)
        return _outcome(prompt)

    with output_at(path, batch, force=False) as output:
        asyncio.run(answer_all(batch, output, ask, concurrency=concurrency, kept=lambda _: None))
        output.compact()
    return asked


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[BatchInput, bytes]:
    """Return a batch, and the file that a run from beginning to end leaves."""
    folder = tmp_path_factory.mktemp("batch")
    batch = batch_of(folder / "in", numbered(COUNT))
    assert sorted(_run(batch, folder / "out", 3)) == [f"a{number}" for number in range(COUNT)]
    return batch, (folder / "out").read_bytes()


@given(
    left=st.lists(st.tuples(st.integers(0, COUNT - 1), st.booleans()), max_size=2 * COUNT),
    torn=st.one_of(st.just(0), st.integers(1, 120)),
    concurrency=st.integers(1, COUNT),
)
def test_whatever_was_left_the_end_is_the_same(uninterrupted: tuple[BatchInput, bytes], left: Sequence[tuple[int, bool]], torn: int, concurrency: int) -> None:
    """Whole lines in any order, with failures that were to be asked again, and a torn end: only what had not ended is asked, and the file is the same."""
    batch, expected = uninterrupted
    prompts = list(batch.prompts(lambda _: True))
    failed = Outcome(standing=Standing.RETRY, told={"error": error_fields(code="UNAVAILABLE", message="m")})
    done: set[int] = set()
    content = b""
    for place, ended in left:
        if place not in done:
            content += line_of(prompts[place], _outcome(prompts[place]) if ended else failed)
            done |= {place} if ended else set()
    rest = [place for place in range(COUNT) if place not in done]
    if rest:
        content += line_of(prompts[rest[0]], _outcome(prompts[rest[0]]))[:torn]
    path = batch.file.with_name("resumed")
    path.write_bytes(content)
    assert _run(batch, path, concurrency) == [f"a{place}" for place in rest]
    assert path.read_bytes() == expected
    assert kept_ids(path) == list(batch.places)
    assert names_in(path.parent) == ["in", "out", "resumed"]
