"""Cached answers through the four services: what a hit costs, and where it comes from."""

import asyncio
from typing import Any

import pytest

from ensemble.v1 import limiter_service_pb2
from tests.support.fake_provider import Answer, FakeProvider, Status
from tests.support.redis_server import redis_server
from tests.support.repeats import ask, counted, gateways, in_redis, one_of
from tests.support.stack import MEMBERS, WRITER, Stack

CACHED = {"profiles": {"default": {"cache": {"ttl": "1h"}}}, "tenants": {"default": {"requests_per_minute": 60, "budget": {"per_day": 5, "per_month": 50}}}}


async def _spent(services: Stack) -> tuple[list[int], list[int], int]:
    """Return what the tenant has spent and reserved by day and month, and how many permits are held, once all calls are settled."""
    async with asyncio.timeout(10):
        while True:
            state = await services.limiter.GetState(limiter_service_pb2.GetStateRequest(tenants=["default"]), timeout=5)
            budgets = state.tenants[0].budgets
            reserved = [budget.reserved_micro_usd for budget in budgets]
            if not any(reserved):
                return [budget.spent_micro_usd for budget in budgets], reserved, state.tenants[0].in_flight
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cached_answer_costs_the_tenant_nothing(provider: FakeProvider, streamed: bool) -> None:
    """Budgets at the limiter are what they were, no model is called, and the receipt says so; a request that differs is run and paid."""
    async with gateways(provider, 1, **CACHED) as (services, [stub]):
        first = await ask(stub, "", include_candidates=True)
        paid = await _spent(services)
        assert (paid[0][0] > 0, first.receipt.cached, first.receipt.cost.micro_usd > 0) == (True, False, True)
        hits = [await ask(stub, request_id, streamed=streamed, include_candidates=True) for request_id in ("", "mine", "mine")]
        assert await _spent(services) == paid
        assert counted(provider) == [1, 1, 1, 1]
        for hit in hits:
            assert (hit.answer, hit.candidates, hit.provenance) == (first.answer, first.candidates, first.provenance)
            assert hit.receipt.cached
            assert hit.receipt.HasField("cached_age")
            assert (hit.receipt.cost.micro_usd, hit.receipt.usage.output_tokens, len(hit.receipt.calls), len(hit.receipt.stages)) == (0, 0, 0, 0)
            assert hit.run_id != first.run_id
            assert len(hit.trace_id) == 32
            assert hit.trace_id != first.trace_id
        # The same id twice is one answer, the receipt's times among it.
        one_of(hits[1:])
        await ask(stub, "", streamed=streamed, prompt="Another?", include_candidates=True)
        assert (await _spent(services))[0] != paid[0]


async def test_two_gateways_share_cached_answers(provider: FakeProvider) -> None:
    """What one has kept in Redis serves the other, whichever way it is asked."""
    async with redis_server() as server, gateways(provider, 2, **CACHED, **in_redis(server)) as (_, [one, other]):
        first = await ask(one, "", prompt="Why?", system="Be brief.")
        messages: list[dict[str, Any]] = [{"role": "ROLE_SYSTEM", "text": "Be brief."}, {"role": "ROLE_USER", "text": "Why?"}]
        hit = await ask(other, "", prompt="", messages=messages, streamed=True)
        assert (hit.receipt.cached, hit.answer) == (True, first.answer)
        assert counted(provider) == [1, 1, 1, 1]


async def test_a_changed_configuration_serves_nothing_old(provider: FakeProvider) -> None:
    """A gateway whose profiles are others runs what the one before had answered, also where both ask for the same in the end."""
    async with redis_server() as server:
        changed = {"models": {name: {"max_output_tokens": 77} for name in (*MEMBERS, WRITER)}}
        for overrides in ({}, changed):
            async with gateways(provider, 1, **CACHED, **in_redis(server), **overrides) as (_, [stub]):
                assert not (await ask(stub, "")).receipt.cached
                assert (await ask(stub, "")).receipt.cached


async def test_a_degraded_answer_is_not_kept(provider: FakeProvider) -> None:
    """The next request may get the whole one."""
    provider.script(WRITER, *[Status(500)] * 4, Answer())
    async with gateways(provider, 1, **CACHED) as (_, [stub]):
        degraded = 0
        while (response := await ask(stub, "")).degraded:
            assert not response.receipt.cached
            degraded += 1
        assert degraded >= 2
        assert not response.receipt.cached
        assert (await ask(stub, "")).receipt.cached
