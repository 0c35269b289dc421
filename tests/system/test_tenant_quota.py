"""A tenant's own requests, tokens, calls at once and budget, over the real four services: what the caller is told when they are used up, and when not."""

from typing import Any

import grpc
import pytest

from ensemble.v1 import degradation_pb2, gateway_service_pb2, generation_parameters_pb2, outcome_pb2
from services.chassis.status import DETAILS_KEY
from tests.support.error_examples import parsed
from tests.support.fake_provider import Answer, FakeProvider, Hang, Status
from tests.support.stack import Stack, stack

Generation = generation_parameters_pb2.GenerationParameters
ASKED: dict[str, Any] = {"generation": Generation(max_output_tokens=100)}
"""One call may use some 110 tokens, for some 210 micro-USD."""


def _tenant(**limits: Any) -> dict[str, Any]:
    """Return the limits of the calls that name no tenant."""
    return {"tenants": {"default": limits}}


async def _refusal(services: Stack, *, streaming: bool, timeout: float = 10.0, **fields: Any) -> dict[str, Any]:
    """Ask, expect to be refused as beyond the quota, and return the details by the names of their messages."""
    request = gateway_service_pb2.GenerateRequest(prompt="What is it?", **ASKED, **fields)

    async def ask() -> None:
        if streaming:
            async for _ in services.gateway.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=request), timeout=timeout):
                pass
        else:
            await services.gateway.Generate(request, timeout=timeout)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = parsed(dict(raised.value.trailing_metadata() or ())[DETAILS_KEY])
    assert found["ErrorInfo"].reason == "QUOTA_EXHAUSTED"
    return found


def _quotas(found: dict[str, Any]) -> dict[str, str]:
    return {violation.subject: violation.description for violation in found["QuotaFailure"].violations}


def _wait(found: dict[str, Any]) -> float:
    delay = found["RetryInfo"].retry_delay
    return float(delay.seconds + delay.nanos / 1e9)


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "streaming"])
async def test_requests_a_minute(provider: FakeProvider, streaming: bool) -> None:
    """The one that may come at once is answered; the next is told when there is another, with the limit by name and value."""
    async with stack(provider, **_tenant(requests_per_minute=2)) as services:
        await services.ask(profile="chain", **ASKED)
        found = await _refusal(services, streaming=streaming, profile="chain")
    assert _quotas(found) == {"tenant/default/requests_per_minute": "the tenant's limit of 2 requests a minute is reached"}
    assert dict(found["ErrorInfo"].metadata) == {"subject": "tenant/default/requests_per_minute"}
    assert 20 < _wait(found) <= 36
    assert len(provider.asked("alpha")) == 1


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "streaming"])
async def test_tokens_a_minute(provider: FakeProvider, streaming: bool) -> None:
    """A panel of which one call fits is not begun, since two are needed; the one that could have been had is not counted against it."""
    async with stack(provider, **_tenant(tokens_per_minute=150)) as services:
        found = await _refusal(services, streaming=streaming)
        assert await services.in_flight() == 0
    assert _quotas(found) == {"tenant/default/tokens_per_minute": "the tenant's limit of 150 tokens a minute is reached"}
    assert _wait(found) > 0
    assert not provider.requests


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "streaming"])
async def test_calls_at_once(provider: FakeProvider, streaming: bool) -> None:
    """One place is held by a call that hangs, so that another is refused; once it ends, the next is answered."""
    provider.script("alpha", Hang(), Answer())
    async with stack(provider, **_tenant(concurrency=1)) as services:
        hanging = services.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt="What is it?", profile="chain", **ASKED), timeout=10)
        await provider.started("alpha")
        found = await _refusal(services, streaming=streaming, timeout=2.0, profile="chain")
        assert await services.in_flight() == 1
        hanging.cancel()
        await provider.disconnected("alpha")
        assert (await services.ask(profile="chain", **ASKED)).answer == "an answer"
    assert _quotas(found) == {"tenant/default/concurrency": "the tenant's limit of 1 call at once is reached"}
    assert _wait(found) > 0


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "streaming"])
async def test_a_budget(provider: FakeProvider, streaming: bool) -> None:
    """A day's budget that covers one of two calls comes back at midnight, UTC."""
    async with stack(provider, **_tenant(budget={"per_day": 0.0003})) as services:
        found = await _refusal(services, streaming=streaming)
    assert _quotas(found) == {"tenant/default/budget_per_day": "the tenant's budget of 0.0003 USD a day (UTC) does not cover this request"}
    assert 0 < _wait(found) <= 86_400 + 60


@pytest.mark.parametrize(
    ("limits", "subject"),
    [({"tokens_per_minute": 50}, "tokens_per_minute"), ({"budget": {"per_month": 0.0001}}, "budget_per_month")],
    ids=["tokens", "budget"],
)
async def test_what_no_waiting_allows_has_no_time_to_wait(provider: FakeProvider, limits: dict[str, Any], subject: str) -> None:
    """A call that is larger than the whole limit is refused for good."""
    async with stack(provider, **_tenant(**limits)) as services:
        found = await _refusal(services, streaming=False, profile="chain")
    (words,) = _quotas(found).values()
    assert found["ErrorInfo"].metadata["subject"] == f"tenant/default/{subject}"
    assert words.startswith("one call of this request needs more than the tenant's")
    assert "RetryInfo" not in found


async def test_what_was_spent_before_the_limit_is_told(provider: FakeProvider) -> None:
    """Two calls are made, one of them brings nothing, and the third is beyond the limit: the first one's cost is in the metadata."""
    provider.script("beta", Status(400))
    async with stack(provider, **_tenant(requests_per_minute=2, request_burst=2)) as services:
        found = await _refusal(services, streaming=False)
    assert set(_quotas(found)) == {"tenant/default/requests_per_minute"}
    assert int(found["ErrorInfo"].metadata["cost_micro_usd"]) == 20


async def test_a_quota_that_comes_in_time_is_waited_for(provider: FakeProvider) -> None:
    """A panel that needs two calls where one may come at once waits within its deadline, and answers."""
    async with stack(provider, **_tenant(requests_per_minute=600, request_burst=2)) as services:
        await services.ask(profile="chain", **ASKED)
        response = await services.ask(timeout=20.0, **ASKED)
    assert len([one for one in response.candidates if one.outcome == outcome_pb2.OUTCOME_OK]) >= 2


async def test_a_receipt_says_that_a_limit_was_the_tenants_own(provider: FakeProvider) -> None:
    """A panel that has its quorum answers without the member that was denied, and without the writer, degraded."""
    async with stack(provider, **_tenant(requests_per_minute=2, request_burst=2)) as services:
        response = await services.ask(**ASKED)
    assert list(response.degradations) == [degradation_pb2.DEGRADATION_REFINER_FAILED]
    calls = {(call.candidate_id or call.member_id): (call.outcome, call.reason) for call in response.receipt.calls}
    assert calls["gamma"] == (outcome_pb2.OUTCOME_RATE_LIMITED, "denied_tenant_requests")
    assert calls["refiner"] == (outcome_pb2.OUTCOME_RATE_LIMITED, "denied_tenant_requests")


async def test_a_models_own_limit_is_no_quota_of_the_caller(provider: FakeProvider) -> None:
    """Where the model's requests a minute are used up, too few members answered: the tenant can do nothing about it but wait."""
    models = {"models": {name: {"limits": {"requests_per_minute": 1}} for name in ("alpha", "beta", "gamma")}}
    async with stack(provider, **_tenant(requests_per_minute=600), **models) as services:
        await services.ask(**ASKED)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await services.ask(**ASKED)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    found = parsed(dict(raised.value.trailing_metadata() or ())[DETAILS_KEY])
    assert found["ErrorInfo"].reason == "NO_QUORUM"
    assert found["ErrorInfo"].metadata["candidate.alpha"] == "RATE_LIMITED:denied_requests"
