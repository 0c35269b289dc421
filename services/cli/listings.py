"""`ensemble models`, `profiles` and `health`: what is there, and how it is."""

import asyncio
from collections.abc import Mapping

import grpc
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Column, Table

from ensemble.v1 import model_state_pb2
from services.cli.connection import Connection
from services.cli.ending import print_json
from services.cli.exit_codes import ExitCode
from services.cli.gateway_client import channel_to, gateway_at
from services.cli.receipt_table import breaker_name, plain, seconds
from services.cli.tls_errors import tls_hint

TIMEOUT_SECONDS = 5.0
SERVICES = {
    "gateway": "ensemble.v1.GatewayService",
    "orchestrator": "ensemble.v1.OrchestratorService",
    "limiter": "ensemble.v1.LimiterService",
    "refiner": "ensemble.v1.RefinerService",
}


async def list_models(gateway: Connection, *, as_json: bool) -> None:
    """Print the models with what is left of their limits. Raises `CommandError`."""
    async with gateway_at(gateway) as client:
        response = await client.models(timeout=TIMEOUT_SECONDS)
    if as_json:
        print_json(MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
        return
    table = _table("model", "provider", "name there", "breaker", "in flight", "left of its limits")
    for model in response.models:
        state = model.state
        left = ", ".join(f"{limit.name} {limit.remaining}/{limit.limit}" for limit in state.limits)
        table.add_row(*map(plain, (model.name, model.provider, model.provider_model, _breaker(state), str(state.in_flight), left)))
    Console().print(table)


async def list_profiles(gateway: Connection, *, as_json: bool) -> None:
    """Print the configured ensembles. Raises `CommandError`."""
    async with gateway_at(gateway) as client:
        response = await client.profiles(timeout=TIMEOUT_SECONDS)
    if as_json:
        print_json(MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
        return
    table = _table("profile", "strategy", "members", "refiner", "description")
    for profile in response.profiles:
        members = ", ".join(member.id or member.model for member in profile.members)
        table.add_row(*map(plain, (profile.name, profile.strategy, members, profile.options.refiner.model, profile.description)))
    Console().print(table)


async def check_health(connections: Mapping[str, Connection], *, as_json: bool) -> ExitCode:
    """Ask every service for its health under "" and under its own name; OK only if all serve."""
    found = dict(zip(connections, await asyncio.gather(*(_health(name, connection) for name, connection in connections.items())), strict=True))
    serving = all(one["alive"] == one["ready"] == "SERVING" for one in found.values())
    if as_json:
        print_json({"serving": serving, "services": found})
    else:
        table = _table("service", "address", "alive", "ready")
        for name, one in found.items():
            table.add_row(name, plain(one["address"]), one["alive"], one["ready"])
        Console().print(table)
        for name, one in found.items():
            if problem := one.get("problem"):
                Console(stderr=True, highlight=False).print(plain(f"{name}: {problem}"), soft_wrap=True)
    return ExitCode.OK if serving else ExitCode.UNAVAILABLE


async def _health(name: str, connection: Connection) -> dict[str, str]:
    async with channel_to(connection) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        (alive, problem), (ready, _) = [await _status(stub, service, tls=connection.tls is not None) for service in ("", SERVICES[name])]
        return {"address": connection.address, "alive": alive, "ready": ready} | ({"problem": problem} if problem else {})


async def _status(stub: health_pb2_grpc.HealthStub, service: str, *, tls: bool) -> tuple[str, str]:
    """Return what the service says, or the code of the error, and what may be wrong with TLS."""
    try:
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name), tls_hint(error.details() or "", tls=tls)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)), ""


def _table(*headings: str) -> Table:
    """Return a table that breaks lines where it is too narrow, and never leaves out a part of a name."""
    return Table(*(Column(heading, overflow="fold") for heading in headings))


def _breaker(state: model_state_pb2.ModelState) -> str:
    """Return what the model lets through and until when it does not."""
    said = breaker_name(state.breaker.state)
    if state.breaker.HasField("open_for"):
        said += f" for {seconds(state.breaker.open_for)}"
    if state.HasField("provider_backoff"):
        said += f", provider asks to wait {seconds(state.provider_backoff)}"
    return said
