"""LimiterService over real gRPC: every RPC, every refusal with its field, and the breaker as callers see it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ensemble.v1 import limiter_service_pb2 as pb
from ensemble.v1 import limiter_service_pb2_grpc, model_state_pb2, permit_pb2
from services.chassis.channel import open_channel
from services.chassis.errors import DependencyUnavailable, RemoteError
from services.chassis.telemetry import Telemetry
from services.cli.rpc_errors import RpcFailure, failure_of
from services.limiter.app import SERVICE, application
from services.models.grpc_permits import GrpcPermits
from services.models.permits import AcquireRequest, CallResult, Denial, DenialReason, Permit, PermitOutcome, PermitSpec, Settlement
from tests.support.fake_provider import FakeProvider
from tests.support.stack import configured

BREAKER = {"consecutive_failures": 3, "open": "5s", "good_probes": 1}


class Clock:
    """Seconds in the hand of the test."""

    now = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
async def address(clock: Clock) -> AsyncIterator[str]:
    """Run a limiter; give its address."""
    provider = FakeProvider()
    provider.base_url = "http://127.0.0.1:1/v1"
    configuration = configured(provider, models={"alpha": {"limits": {"requests_per_minute": 600, "concurrency": 5}, "breaker": BREAKER}})
    async with application(configuration, listen="127.0.0.1:0", clock=clock, uniform=lambda low, _: low) as server:
        yield server.address


@pytest.fixture
async def stub(address: str) -> AsyncIterator[Any]:
    """Return a caller's stub."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield limiter_service_pb2_grpc.LimiterServiceStub(channel)


async def _failure(work: Any) -> RpcFailure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    return failure_of(caught.value)


def _acquire(*models: str, request_id: str = "r", **fields: Any) -> pb.AcquirePermitsRequest:
    return pb.AcquirePermitsRequest(request_id=request_id, specs=[permit_pb2.PermitSpec(model=model) for model in models], **fields)


async def test_a_permits_life_over_the_wire(stub: Any) -> None:
    """Acquired, seen in the state, renewed, reported once, known as a duplicate; another one released."""
    granted = (await stub.AcquirePermits(_acquire("alpha", "beta"))).decisions
    first, second = (decision.permit.permit_id for decision in granted)
    assert granted[0].permit.lease_ttl.seconds == 60
    state = (await stub.GetState(pb.GetStateRequest(models=["alpha"]))).models[0]
    assert (state.in_flight, state.breaker.state) == (1, model_state_pb2.BREAKER_STATE_CLOSED)
    assert {level.name: level.remaining for level in state.limits} == {"requests_per_minute": 99, "concurrency": 4, "retries": 10}
    renewal = (await stub.RenewPermits(pb.RenewPermitsRequest(permit_ids=[first, "x"], lease_ttl=Duration(seconds=30)))).renewals
    assert [(one.renewed, one.lease_ttl.seconds) for one in renewal] == [(True, 30), (False, 0)]
    report = pb.ReportOutcomesRequest(outcomes=[permit_pb2.PermitOutcome(permit_id=first, result=permit_pb2.CALL_RESULT_SUCCESS)])
    assert list((await stub.ReportOutcomes(report)).settlements) == [permit_pb2.SETTLEMENT_SETTLED]
    assert list((await stub.ReportOutcomes(report)).settlements) == [permit_pb2.SETTLEMENT_DUPLICATE]
    assert list((await stub.ReleasePermits(pb.ReleasePermitsRequest(permit_ids=[second]))).settlements) == [permit_pb2.SETTLEMENT_SETTLED]
    assert [model.in_flight for model in (await stub.GetState(pb.GetStateRequest())).models] == [0, 0, 0, 0]


LONG = "x" * 129
OUTCOME = permit_pb2.PermitOutcome
BAD: dict[str, tuple[str, Any, list[str]]] = {
    "nothing": ("AcquirePermits", pb.AcquirePermitsRequest(), ["request_id", "specs"]),
    "names": ("AcquirePermits", _acquire("", LONG, request_id=LONG, tenant=LONG), ["request_id", "tenant", "specs[0].model", "specs[1].model"]),
    "too many": ("AcquirePermits", _acquire(*["alpha"] * 65), ["specs"]),
    "numbers": (
        "AcquirePermits",
        pb.AcquirePermitsRequest(
            request_id="r", specs=[permit_pb2.PermitSpec(model="alpha", input_tokens=-1, max_output_tokens=2**31, cost_micro_usd=-5)], min_granted=2
        ),
        ["specs[0].input_tokens", "specs[0].max_output_tokens", "specs[0].cost_micro_usd", "min_granted"],
    ),
    "a lease of nothing": ("AcquirePermits", _acquire("alpha", lease_ttl=Duration(nanos=5)), ["lease_ttl"]),
    "no outcomes": ("ReportOutcomes", pb.ReportOutcomesRequest(), ["outcomes"]),
    "bad outcomes": (
        "ReportOutcomes",
        pb.ReportOutcomesRequest(
            outcomes=[
                OUTCOME(result=permit_pb2.CALL_RESULT_SUCCESS),
                OUTCOME(permit_id="p", input_tokens=-1, output_tokens=-1, cached_input_tokens=-1, cost_micro_usd=-1, latency=Duration(seconds=-1)),
                OUTCOME(permit_id="p", result=permit_pb2.CALL_RESULT_AUTH, rate_limit_headers={"a": "x" * 257}),
            ]
        ),
        [
            "outcomes[0].permit_id",
            "outcomes[1].result",
            "outcomes[1].input_tokens",
            "outcomes[1].cached_input_tokens",
            "outcomes[1].output_tokens",
            "outcomes[1].cost_micro_usd",
            "outcomes[1].latency",
            "outcomes[2].rate_limit_headers",
        ],
    ),
    "renew nothing": ("RenewPermits", pb.RenewPermitsRequest(permit_ids=["", LONG]), ["permit_ids[0]", "permit_ids[1]", "lease_ttl"]),
    "release nothing": ("ReleasePermits", pb.ReleasePermitsRequest(), ["permit_ids"]),
    "too many models": ("GetState", pb.GetStateRequest(models=["alpha"] * 257), ["models"]),
    "too many tenants": ("GetState", pb.GetStateRequest(models=[""], tenants=["t"] * 257), ["models[0]", "tenants"]),
    "a thousand": ("AcquirePermits", _acquire(*["alpha"] * 1000), ["specs"]),
    "a lease of zero": ("AcquirePermits", _acquire("alpha", lease_ttl=Duration()), ["lease_ttl"]),
    "a lease of before": ("AcquirePermits", _acquire("alpha", lease_ttl=Duration(seconds=-5)), ["lease_ttl"]),
    "an override of nothing": ("SetOverride", pb.SetOverrideRequest(mode=model_state_pb2.OVERRIDE_MODE_DISABLED), ["model", "ttl"]),
    "an unknown mode": ("SetOverride", pb.SetOverrideRequest(model=LONG, mode=99, ttl=Duration(seconds=86_401)), ["model", "mode", "ttl"]),  # type: ignore[arg-type] # on purpose
    "an override too short": (
        "SetOverride",
        pb.SetOverrideRequest(model="alpha", mode=model_state_pb2.OVERRIDE_MODE_FORCED_OPEN, ttl=Duration(nanos=999_999_999)),
        ["ttl"],
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_names_every_field(stub: Any, name: str) -> None:
    """All mistakes at once, each with its path; no counter moves."""
    rpc, request, fields = BAD[name]
    before = await stub.GetState(pb.GetStateRequest())
    failure = await _failure(getattr(stub, rpc)(request))
    assert (failure.code, list(failure.violations)) == ("INVALID_ARGUMENT", fields)
    assert all(failure.violations.values())
    assert await stub.GetState(pb.GetStateRequest()) == before


async def test_an_unknown_model_is_not_found(stub: Any) -> None:
    """It is named; for the state too."""
    before = await stub.GetState(pb.GetStateRequest())
    assert (await _failure(stub.AcquirePermits(_acquire("alpha", "nobody")))).code == "NOT_FOUND"
    assert (await _failure(stub.GetState(pb.GetStateRequest(models=["nobody"])))).code == "NOT_FOUND"
    assert await stub.GetState(pb.GetStateRequest()) == before


async def test_a_request_id_that_was_used_for_something_else_is_refused(stub: Any) -> None:
    """With other models, other numbers or fewer specs; the same again gets the same permits, and nothing is charged for any of it."""
    granted = await stub.AcquirePermits(_acquire("alpha", "beta"))
    before = await stub.GetState(pb.GetStateRequest())
    more = pb.AcquirePermitsRequest(request_id="r", specs=[permit_pb2.PermitSpec(model="alpha", input_tokens=1), permit_pb2.PermitSpec(model="beta")])
    for other in (_acquire("alpha"), _acquire("beta", "alpha"), more):
        failure = await _failure(stub.AcquirePermits(other))
        assert (failure.code, list(failure.violations)) == ("INVALID_ARGUMENT", ["request_id"])
    again = await stub.AcquirePermits(_acquire("alpha", "beta"))
    assert [one.permit.permit_id for one in again.decisions] == [one.permit.permit_id for one in granted.decisions]
    assert await stub.GetState(pb.GetStateRequest()) == before


async def test_forged_permits_are_unknown_and_move_nothing(stub: Any) -> None:
    """Made-up ids, and real ones with a letter more, are nobody's: not settled, not given back, not renewed."""
    real = (await stub.AcquirePermits(_acquire("alpha"))).decisions[0].permit.permit_id
    before = await stub.GetState(pb.GetStateRequest())
    forged = [real + "0", real[:-1], real.upper() + "!", "p1", "unstored-1", "'; --", "../" + real]
    outcomes = [OUTCOME(permit_id=one, result=permit_pb2.CALL_RESULT_FAILURE, input_tokens=10_000, cost_micro_usd=10**9) for one in forged]
    settlements = (await stub.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes))).settlements
    assert list(settlements) == [permit_pb2.SETTLEMENT_UNKNOWN] * len(forged)
    settlements = (await stub.ReleasePermits(pb.ReleasePermitsRequest(permit_ids=forged))).settlements
    assert list(settlements) == [permit_pb2.SETTLEMENT_UNKNOWN] * len(forged)
    renewals = (await stub.RenewPermits(pb.RenewPermitsRequest(permit_ids=forged, lease_ttl=Duration(seconds=9)))).renewals
    assert not any(renewal.renewed for renewal in renewals)
    assert await stub.GetState(pb.GetStateRequest()) == before


async def test_a_breaker_over_real_calls(stub: Any, clock: Clock) -> None:
    """Failures open it, callers are told when to come back, one probe goes through, success closes it."""
    for number in range(3):
        (granted,) = (await stub.AcquirePermits(_acquire("alpha", request_id=f"f{number}"))).decisions
        await stub.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=[OUTCOME(permit_id=granted.permit.permit_id, result=permit_pb2.CALL_RESULT_FAILURE)]))
    (denied,) = (await stub.AcquirePermits(_acquire("alpha", request_id="early"))).decisions
    assert denied.denial.reason == permit_pb2.DENIAL_REASON_BREAKER_OPEN
    wait = denied.denial.retry_after.seconds + denied.denial.retry_after.nanos / 1e9
    assert wait == pytest.approx(4.0)
    clock.now += wait
    probe, other = (await stub.AcquirePermits(_acquire("alpha", "alpha", request_id="probe"))).decisions
    assert probe.permit.probe
    assert other.denial.reason == permit_pb2.DENIAL_REASON_BREAKER_OPEN
    await stub.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=[OUTCOME(permit_id=probe.permit.permit_id, result=permit_pb2.CALL_RESULT_SUCCESS)]))
    state = (await stub.GetState(pb.GetStateRequest(models=["alpha"]))).models[0]
    assert state.breaker.state == model_state_pb2.BREAKER_STATE_CLOSED
    assert (await stub.AcquirePermits(_acquire("alpha", request_id="after"))).decisions[0].HasField("permit")


async def test_many_callers_never_exceed_the_limit(address: str) -> None:
    """I1 over real calls: fifty callers share sixteen places, none is lost, all are served."""
    async with open_channel(address, Telemetry.off(), health_service=SERVICE) as channel:
        permits = GrpcPermits(channel)
        running = most = 0

        async def caller(number: int) -> None:
            nonlocal running, most
            decision: Permit | Denial | None = None
            for attempt in range(10_000):
                reply = await permits.acquire(AcquireRequest(request_id=f"c{number}-{attempt}", specs=(PermitSpec(model="beta"),)))
                (decision,) = reply.decisions
                if isinstance(decision, Permit):
                    break
                await asyncio.sleep(0.001)
            assert isinstance(decision, Permit)
            running += 1
            most = max(most, running)
            # Held for a while, so that the calls overlap.
            await asyncio.sleep(0.02)
            running -= 1
            assert await permits.report([PermitOutcome(permit_id=decision.permit_id, result=CallResult.SUCCESS)]) == (Settlement.SETTLED,)

        await asyncio.gather(*(caller(number) for number in range(50)))
        assert 1 < most <= 16


async def test_the_client_keeps_what_the_limiter_says(address: str) -> None:
    """Permits and denials arrive with all their fields; refusals keep their details."""
    async with open_channel(address, Telemetry.off(), health_service=SERVICE) as channel:
        permits = GrpcPermits(channel)
        spec = PermitSpec(model="alpha", input_tokens=3, max_output_tokens=4, cost_micro_usd=5)
        reply = await permits.acquire(AcquireRequest(request_id="r", specs=(spec,) * 6))
        granted = [decision for decision in reply.decisions if isinstance(decision, Permit)]
        assert [(permit.reserved_tokens, permit.reserved_cost_micro_usd, permit.lease_seconds) for permit in granted] == [(7, 5, 60.0)] * 5
        denial = reply.decisions[5]
        assert isinstance(denial, Denial)
        assert (denial.reason, denial.limit, denial.limit_value) == (DenialReason.CONCURRENCY, "model/alpha/concurrency", 5)
        assert denial.retry_after_seconds == pytest.approx(60)
        assert await permits.release([permit.permit_id for permit in granted]) == (Settlement.SETTLED,) * 5
        with pytest.raises(RemoteError) as caught:
            await permits.acquire(AcquireRequest(request_id="r2", specs=(PermitSpec(model="nobody"),)))
        assert caught.value.code == "NOT_FOUND"


async def test_a_limiter_that_is_away_is_named() -> None:
    """Each of the client's calls says who cannot be reached."""
    async with open_channel("127.0.0.1:1", Telemetry.off(), health_service=SERVICE) as channel:
        permits = GrpcPermits(channel)
        for work in (
            permits.acquire(AcquireRequest(request_id="r", specs=(PermitSpec(model="m"),))),
            permits.report([PermitOutcome(permit_id="p", result=CallResult.SUCCESS)]),
            permits.release(["p"]),
        ):
            with pytest.raises(DependencyUnavailable, match="limiter"):
                await work
