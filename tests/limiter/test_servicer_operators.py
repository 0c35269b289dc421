"""What operators ask LimiterService over real gRPC: the state of models and tenants, the stream of its changes, and overrides."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ensemble.v1 import limiter_service_pb2 as pb
from ensemble.v1 import limiter_service_pb2_grpc, model_state_pb2, permit_pb2
from services.cli.rpc_errors import RpcFailure, failure_of
from services.limiter.app import application
from tests.support.fake_provider import FakeProvider
from tests.support.stack import configured

MODELS = ["alpha", "beta", "gamma", "writer"]
FORCED_OPEN = model_state_pb2.OVERRIDE_MODE_FORCED_OPEN


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
async def stub(clock: Clock) -> AsyncIterator[Any]:
    """Run a limiter with tenants; return a caller's stub."""
    provider = FakeProvider()
    provider.base_url = "http://127.0.0.1:1/v1"
    tenants = {"acme": {"requests_per_minute": 600, "concurrency": 4, "budget": {"per_day": 0.001}}, "other": {}}
    configuration = configured(provider, tenants=tenants)
    # The channel is closed first, so that no watch is open when the server ends.
    limiter = application(configuration, listen="127.0.0.1:0", clock=clock, uniform=lambda low, _: low)
    async with limiter as server, grpc.aio.insecure_channel(server.address) as channel:
        yield limiter_service_pb2_grpc.LimiterServiceStub(channel)


async def _failure(work: Any) -> RpcFailure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    return failure_of(caught.value)


def _acquire(request_id: str, model: str = "alpha", tenant: str = "acme", cost: int = 0) -> pb.AcquirePermitsRequest:
    return pb.AcquirePermitsRequest(request_id=request_id, tenant=tenant, specs=[permit_pb2.PermitSpec(model=model, cost_micro_usd=cost)])


def _named(message: Any) -> tuple[list[str], list[str]]:
    return [model.model for model in message.models], [tenant.tenant for tenant in message.tenants]


async def test_the_state_tells_models_and_tenants(stub: Any) -> None:
    """All of them by name, or those who are named in their order; limits, levels and money."""
    await stub.AcquirePermits(_acquire("r", cost=400))
    everything = await stub.GetState(pb.GetStateRequest())
    assert _named(everything) == (MODELS, ["acme", "other"])
    assert (everything.config_version, everything.degraded, everything.HasField("learning_for")) == (1, False, False)
    some = await stub.GetState(pb.GetStateRequest(models=["gamma", "alpha"], tenants=["other", "acme"]))
    assert _named(some) == (["gamma", "alpha"], ["other", "acme"])
    acme = some.tenants[1]
    assert {level.name: (level.limit, level.remaining) for level in acme.limits} == {"requests_per_minute": (600, 99), "concurrency": (4, 3)}
    (budget,) = acme.budgets
    assert (budget.period, budget.limit_micro_usd, budget.spent_micro_usd, budget.reserved_micro_usd) == ("day", 1000, 0, 400)
    assert 0 < budget.resets_in.seconds + budget.resets_in.nanos <= 86_400 + 10**9
    assert acme.in_flight == 1


async def test_an_unknown_tenant_is_not_found(stub: Any) -> None:
    """For permits, the state and the stream; nobody else is named, and nothing is charged."""
    before = await stub.GetState(pb.GetStateRequest(tenants=["other"]))
    failures = [
        await _failure(stub.AcquirePermits(_acquire("r", tenant="nobody"))),
        await _failure(stub.GetState(pb.GetStateRequest(tenants=["acme", "nobody"]))),
        await _failure(stub.WatchState(pb.WatchStateRequest(tenants=["nobody"])).read()),
    ]
    assert [failure.code for failure in failures] == ["NOT_FOUND"] * 3
    assert not any("acme" in str(failure) for failure in failures)
    assert await stub.GetState(pb.GetStateRequest(tenants=["other"])) == before


async def test_a_tenants_denials_arrive(stub: Any) -> None:
    """Spent money waits for the next day, more than the whole budget waits for nothing."""
    await stub.AcquirePermits(_acquire("a", cost=900))
    spent, never = [(await stub.AcquirePermits(_acquire(f"b{cost}", cost=cost))).decisions[0].denial for cost in (101, 1001)]
    assert (spent.reason, spent.limit, spent.limit_value, spent.remaining) == (permit_pb2.DENIAL_REASON_BUDGET, "tenant/acme/budget_per_day", 1000, 100)
    assert spent.HasField("retry_after")
    assert (never.reason, never.HasField("retry_after")) == (permit_pb2.DENIAL_REASON_TOO_LARGE, False)


async def test_a_watch_tells_first_the_whole_and_then_what_changes(stub: Any) -> None:
    """The change of one model and one tenant is a message with these alone; those who watch others hear nothing of it."""
    stream = stub.WatchState(pb.WatchStateRequest())
    first = await stream.read()
    assert _named(first) == (MODELS, ["acme", "other"])
    assert first.models[0] == (await stub.GetState(pb.GetStateRequest(models=["alpha"]))).models[0]
    assert first.config_version == 1
    await stub.AcquirePermits(_acquire("r", "beta", cost=5))
    change = await stream.read()
    assert _named(change) == (["beta"], ["acme"])
    assert (change.models[0].in_flight, change.tenants[0].budgets[0].reserved_micro_usd) == (1, 5)
    await stub.SetOverride(pb.SetOverrideRequest(model="gamma", mode=FORCED_OPEN, ttl=Duration(seconds=60)))
    change = await stream.read()
    assert _named(change) == (["gamma"], [])
    assert (change.models[0].override, change.models[0].override_for.seconds) == (FORCED_OPEN, 60)
    stream.cancel()


async def test_a_watch_of_some_tells_of_them_alone(stub: Any) -> None:
    """In the order asked for."""
    stream = stub.WatchState(pb.WatchStateRequest(models=["gamma", "beta"], tenants=["other"]))
    assert _named(await stream.read()) == (["gamma", "beta"], ["other"])
    await stub.AcquirePermits(_acquire("r", "alpha"))
    await stub.AcquirePermits(_acquire("s", "beta"))
    assert _named(await stream.read()) == (["beta"], [])
    stream.cancel()


async def test_a_watch_of_bad_names_ends_with_every_field(stub: Any) -> None:
    """As the state would."""
    failure = await _failure(stub.WatchState(pb.WatchStateRequest(models=["x" * 129], tenants=[""])).read())
    assert (failure.code, list(failure.violations)) == ("INVALID_ARGUMENT", ["models[0]", "tenants[0]"])
    assert (await _failure(stub.WatchState(pb.WatchStateRequest(models=["nobody"])).read())).code == "NOT_FOUND"


async def test_an_override_is_set_replaced_ends_and_is_lifted(stub: Any, clock: Clock) -> None:
    """The reply and the state show it with the time it has left; a denial says how long."""
    state = (await stub.SetOverride(pb.SetOverrideRequest(model="alpha", mode=FORCED_OPEN, ttl=Duration(seconds=30)))).model
    assert (state.model, state.override, state.override_for.seconds) == ("alpha", FORCED_OPEN, 30)
    clock.now += 10
    denial = (await stub.AcquirePermits(_acquire("r"))).decisions[0].denial
    assert (denial.reason, denial.limit, denial.retry_after.seconds) == (permit_pb2.DENIAL_REASON_FORCED_OPEN, "model/alpha/override", 20)
    disabled = model_state_pb2.OVERRIDE_MODE_DISABLED
    assert (await stub.SetOverride(pb.SetOverrideRequest(model="alpha", mode=disabled, ttl=Duration(seconds=86_400)))).model.override == disabled
    assert (await stub.AcquirePermits(_acquire("r"))).decisions[0].HasField("permit")
    lifted = (await stub.SetOverride(pb.SetOverrideRequest(model="alpha"))).model
    assert (lifted.override, lifted.HasField("override_for")) == (model_state_pb2.OVERRIDE_MODE_UNSPECIFIED, False)
    await stub.SetOverride(pb.SetOverrideRequest(model="alpha", mode=FORCED_OPEN, ttl=Duration(seconds=1)))
    clock.now += 1
    assert (await stub.AcquirePermits(_acquire("s"))).decisions[0].HasField("permit")


async def test_metrics_only_says_what_it_would_have_denied(stub: Any) -> None:
    """On the permit, and counted in the state."""
    await stub.SetOverride(pb.SetOverrideRequest(model="alpha", mode=model_state_pb2.OVERRIDE_MODE_METRICS_ONLY, ttl=Duration(seconds=60)))
    permits = [(await stub.AcquirePermits(_acquire(f"r{number}", tenant="other"))).decisions[0].permit for number in range(17)]
    assert {permit.would_have_denied for permit in permits[:16]} == {permit_pb2.DENIAL_REASON_UNSPECIFIED}
    assert permits[16].would_have_denied == permit_pb2.DENIAL_REASON_CONCURRENCY
    state = (await stub.GetState(pb.GetStateRequest(models=["alpha"]))).models[0]
    assert dict(state.would_have_denied) == {"CONCURRENCY": 1}
    assert (state.in_flight, state.metrics_only) == (17, False)


async def test_an_override_of_an_unknown_model_is_not_found(stub: Any) -> None:
    """Set or lifted."""
    assert (await _failure(stub.SetOverride(pb.SetOverrideRequest(model="nobody")))).code == "NOT_FOUND"
    request = pb.SetOverrideRequest(model="nobody", mode=FORCED_OPEN, ttl=Duration(seconds=5))
    assert (await _failure(stub.SetOverride(request))).code == "NOT_FOUND"
