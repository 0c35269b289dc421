"""`ensemble models`, `profiles` and `health`: what is there, and how it is."""

import asyncio
from collections.abc import Mapping

import grpc
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from ensemble.v1 import gateway_service_pb2, model_state_pb2
from services.cli.asking import print_json
from services.cli.exit_codes import ExitCode
from services.cli.gateway_client import gateway_at
from services.cli.receipt_table import plain, seconds
from services.cli.rpc_errors import failure_of

TIMEOUT_SECONDS = 5.0
SERVICES = {
    "gateway": "ensemble.v1.GatewayService",
    "orchestrator": "ensemble.v1.OrchestratorService",
    "limiter": "ensemble.v1.LimiterService",
    "refiner": "ensemble.v1.RefinerService",
}


async def list_models(gateway: str, *, as_json: bool) -> ExitCode:
    """Print the models with what is left of their limits."""
    try:
        async with gateway_at(gateway) as stub:
            response = await stub.ListModels(gateway_service_pb2.ListModelsRequest(), timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return _failed(error, as_json=as_json)
    if as_json:
        print_json(MessageToDict(response, preserving_proto_field_name=True))
        return ExitCode.OK
    table = Table("model", "provider", "name there", "breaker", "in flight", "left of its limits")
    for model in response.models:
        state = model.state
        breaker = model_state_pb2.BreakerState.Name(state.breaker.state).removeprefix("BREAKER_STATE_")
        if state.breaker.HasField("open_for"):
            breaker += f" for {seconds(state.breaker.open_for)}"
        left = ", ".join(f"{limit.name} {limit.remaining}/{limit.limit}" for limit in state.limits)
        table.add_row(plain(model.name), plain(model.provider), plain(model.provider_model), breaker, str(state.in_flight), plain(left))
    Console().print(table)
    return ExitCode.OK


async def list_profiles(gateway: str, *, as_json: bool) -> ExitCode:
    """Print the configured ensembles."""
    try:
        async with gateway_at(gateway) as stub:
            response = await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return _failed(error, as_json=as_json)
    if as_json:
        print_json(MessageToDict(response, preserving_proto_field_name=True))
        return ExitCode.OK
    table = Table("profile", "strategy", "members", "refiner", "description")
    for profile in response.profiles:
        members = ", ".join(member.id or member.model for member in profile.members)
        table.add_row(plain(profile.name), plain(profile.strategy), plain(members), plain(profile.options.refiner.model), plain(profile.description))
    Console().print(table)
    return ExitCode.OK


async def check_health(addresses: Mapping[str, str], *, as_json: bool) -> ExitCode:
    """Ask every service for its health under "" and under its own name; OK only if all serve."""
    found = dict(zip(addresses, await asyncio.gather(*(_health(name, address) for name, address in addresses.items())), strict=True))
    serving = all(one["alive"] == one["ready"] == "SERVING" for one in found.values())
    if as_json:
        print_json({"serving": serving, "services": found})
    else:
        table = Table("service", "address", "alive", "ready")
        for name, one in found.items():
            table.add_row(name, plain(one["address"]), one["alive"], one["ready"])
        Console().print(table)
    return ExitCode.OK if serving else ExitCode.UNAVAILABLE


async def _health(name: str, address: str) -> dict[str, str]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return {"address": address, "alive": await _status(stub, ""), "ready": await _status(stub, SERVICES[name])}


async def _status(stub: health_pb2_grpc.HealthStub, service: str) -> str:
    try:
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def _failed(error: grpc.aio.AioRpcError, *, as_json: bool) -> ExitCode:
    failure = failure_of(error)
    if as_json:
        print_json(failure.as_json())
    else:
        for line in failure.lines():
            Console(stderr=True).print(line, style="red", markup=False, highlight=False)
    return failure.exit_code
