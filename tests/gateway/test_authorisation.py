"""The whole matrix of who may have what called: each tenant, profile, model in each role, and RPC, against what the configuration says by itself."""

import re
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, member_pb2, model_state_pb2, orchestrator_service_pb2, strategy_options_pb2
from services.chassis.configuration import load_configuration
from services.gateway.app import application
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, FakeServer
from tests.support.tenants import Metadata, bearer, entry_of, key_of, tree

Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
OK, DENIED, MISSING = "OK", "PERMISSION_DENIED", "NOT_FOUND"
MODELS = {"careful", "quick", "judge"}
PROFILES: dict[str, Any] = {
    "default": {"strategy": "fusion", "members": [{"model": "careful"}, {"model": "quick"}], "refiner": {"model": "careful"}, "quorum": 2},
    "alone": {"strategy": "single", "members": [{"model": "quick"}]},
    "ranked": {"strategy": "rank", "members": [{"model": "quick", "samples": 2}], "refiner": {"model": "quick"}, "parameters": {"judges": ["judge"]}},
}
TENANTS: dict[str, Any] = {
    "everything": {},
    "some-profiles": {"profiles": ["alone", "ranked"]},
    "only-default": {"profiles": ["default"]},
    "one-model": {"models": ["quick"]},
    "no-judge": {"models": ["quick", "careful"]},
    "both": {"profiles": ["alone", "ranked"], "models": ["quick", "judge"]},
    "no-profile": {"profiles": []},
    "no-model": {"models": []},
}
STRANGERS: dict[str, Metadata] = {
    "no key": (),
    "a bad key": bearer("stranger"),
    "the key of a tenant that was removed": bearer("removed"),
    "another scheme": (("authorization", f"Digest {key_of('everything')}"),),
    "two values": bearer("everything") * 2,
    "binary metadata": (("authorization-bin", f"Bearer {key_of('everything')}".encode()),),
}
ROLES = ("member", "refiner", "judge")
NAMED = [("", ""), *product(ROLES, [*sorted(MODELS), "unknown"])]


@pytest.fixture
async def stub(fakes: FakeServer, limiter: FakeLimiter) -> AsyncIterator[Stub]:
    """A gateway with all of that, and nobody's key but these tenants'."""
    limiter.states = [model_state_pb2.ModelState(model=model) for model in MODELS]
    said = tree(fakes.address, {name: {**tenant, "keys": [entry_of(name)]} for name, tenant in TENANTS.items()}, profiles=PROFILES)
    # What is packaged would be there as well.
    said["profiles"] = {**PROFILES, "local": None, "single": None}
    said["models"] = {"smollm2": None, **{model: {"provider": "local", "name": model} for model in MODELS}}
    configuration = load_configuration(environ={}, folder=Path(__file__).parent, overrides=said)
    async with application(configuration) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield gateway_service_pb2_grpc.GatewayServiceStub(channel)


def question(profile: str, role: str, model: str) -> gateway_service_pb2.GenerateRequest:
    """Return a request that names a profile, and a model in a role."""
    request = gateway_service_pb2.GenerateRequest(prompt="Why?", profile=profile)
    if role == "member":
        request.members.append(member_pb2.Member(model=model))
    elif role == "refiner":
        request.options.CopyFrom(strategy_options_pb2.StrategyOptions(refiner=strategy_options_pb2.RefinerMember(model=model)))
    elif role == "judge":
        request.options.parameters.update({"judges": [model]})
    return request


def expected(tenant: str, profile: str, role: str, model: str) -> tuple[str, tuple[set[str], set[str], set[str]]]:
    """Return how the call must end and whom it may have called: panel, refiner, judges; from the tables above and nothing else."""
    may, name = TENANTS[tenant], profile or "default"
    nobody: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    if name not in may.get("profiles", [name]):
        return DENIED, nobody
    if name not in PROFILES:
        return MISSING, nobody
    own = PROFILES[name]
    panel = {member["model"] for member in own["members"]}
    called = {"member": panel, "refiner": {own["refiner"]["model"]} if "refiner" in own else set(), "judge": set(own.get("parameters", {}).get("judges", []))}
    if role:
        called[role] = {model}
    everybody = called["member"] | called["refiner"] | called["judge"]
    if not everybody <= set(may.get("models", everybody)):
        return DENIED, nobody
    if not called["member"] | called["refiner"] <= MODELS:
        return MISSING, nobody
    return OK, (called["member"], called["refiner"], called["judge"])


def called_by(run: orchestrator_service_pb2.RunRequest) -> tuple[set[str], set[str], set[str]]:
    """Return whom a run would call."""
    options = MessageToDict(run.options)
    return (
        {member.model for member in run.members},
        {run.options.refiner.model} - {""},
        set(options.get("parameters", {}).get("judges", [])),
    )


async def ended(stub: Stub, rpc: str, request: gateway_service_pb2.GenerateRequest, metadata: Metadata) -> str:
    """Return the name of the code with which a call ended."""
    try:
        if rpc == "Generate":
            await stub.Generate(request, metadata=metadata)
        else:
            async for _ in stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=request), metadata=metadata):
                pass
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return OK


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("rpc", ["Generate", "StreamGenerate"])
async def test_what_a_tenant_may_have_called(stub: Stub, orchestrator: FakeOrchestrator, tenant: str, rpc: str) -> None:
    """Every profile, none and one that is not there; with every model, and one that is not there, named in every role and in none."""
    # Whatever the case of the scheme.
    metadata = bearer(tenant) if rpc == "Generate" else (("authorization", f"bearer {key_of(tenant)}"),)
    ends = set()
    for profile, (role, model) in product(["", *PROFILES, "unknown"], NAMED):
        orchestrator.requests.clear()
        code, called = expected(tenant, profile, role, model)
        assert (profile, role, model, await ended(stub, rpc, question(profile, role, model), metadata)) == (profile, role, model, code)
        assert [(run.tenant, called_by(run)) for run in orchestrator.requests] == ([(tenant, called)] if code == OK else [])
        ends.add(code)
    if tenant == "everything":
        assert ends == {OK, MISSING}
    elif tenant == "no-profile":
        assert ends == {DENIED}
    elif tenant == "no-model":
        assert ends == {DENIED, MISSING}
    else:
        assert {OK, DENIED} <= ends


@pytest.mark.parametrize("tenant", TENANTS)
async def test_what_a_tenant_is_shown(stub: Stub, tenant: str) -> None:
    """The models that may be called, and the profiles that may be asked as they stand; the hints of errors know no others."""
    may = TENANTS[tenant]
    metadata = bearer(tenant)
    models = (await stub.ListModels(gateway_service_pb2.ListModelsRequest(), metadata=metadata)).models
    assert {model.name for model in models} == set(may.get("models", MODELS))
    usable = {name for name in PROFILES if expected(tenant, name, "", "")[0] == OK}
    assert [one.name for one in (await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=metadata)).profiles] == sorted(usable)
    hidden = (set(PROFILES) - usable) | (MODELS - set(may.get("models", MODELS)))
    for role, profile in product(("", *ROLES), ("unknown", *PROFILES)):
        try:
            await stub.Generate(question(profile, role, "unknown"), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            # Whole words, for the message itself speaks of models and profiles.
            assert not hidden & set(re.findall(r"[\w-]+", str(error.details()).partition("known are")[2]))


@pytest.mark.parametrize("metadata", STRANGERS.values(), ids=STRANGERS)
async def test_what_a_stranger_gets(stub: Stub, orchestrator: FakeOrchestrator, metadata: Metadata) -> None:
    """The same of every RPC, whatever is named."""
    words = set()
    for rpc, profile, (role, model) in product(["Generate", "StreamGenerate"], ["", *PROFILES, "unknown"], NAMED):
        assert await ended(stub, rpc, question(profile, role, model), metadata) == "UNAUTHENTICATED"
    for call in (
        stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=metadata),
        stub.ListModels(gateway_service_pb2.ListModelsRequest(), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        words.add(raised.value.details())
    assert len(words) == 1
    assert orchestrator.requests == []
