"""The gateway's client."""

import asyncio
from pathlib import Path

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, run_event_pb2
from services.cli.connection import API_KEY, Connection
from services.cli.exit_codes import ExitCode
from services.cli.gateway_client import Trace, gateway_at
from services.cli.rpc_errors import CallFailed
from services.gateway.app import application
from tests.support.command_line import ensemble
from tests.support.fake_gateway import fake_gateway
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, serve_fakes
from tests.support.tenants import configured, entry_of, key_of

QUESTION = gateway_service_pb2.GenerateRequest(prompt="What?")


async def _everything(address: str) -> list[gateway_service_pb2.StreamGenerateResponse]:
    async with gateway_at(Connection(address=address)) as client:
        return [event async for event in client.stream(QUESTION, timeout=30)]


async def test_leaving_a_stream_cancels_the_run() -> None:
    """While the channel stays open: whoever has seen enough pays for no more."""
    async with fake_gateway() as gateway, gateway_at(Connection(address=gateway.address)) as client:
        gateway.hanging = True
        stream = client.stream(QUESTION, timeout=30)
        assert (await anext(stream)).HasField("run_started")
        await stream.aclose()
        async with asyncio.timeout(10):
            await gateway.cancelled.wait()


async def test_a_failed_call_tells_where_it_went_and_in_which_trace() -> None:
    """Also in the middle of a stream."""
    async with fake_gateway() as gateway:
        gateway.refusal = (grpc.StatusCode.INTERNAL, "internal error; request 1", b"")
        gateway.deltas = [run_event_pb2.AnswerDelta(text="half")]
        with pytest.raises(CallFailed) as caught:
            await _everything(gateway.address)
        assert (caught.value.code, caught.value.connection.address, [caught.value.trace_id]) == (
            ExitCode.FAILED,
            gateway.address,
            [parent.split("-")[1] for parent in gateway.traceparents],
        )


async def test_a_server_of_another_kind_is_told_apart() -> None:
    """What is not served says so, rather than that it cannot be reached."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(CallFailed, match="Method not found") as caught:
        await _everything(f"127.0.0.1:{port}")
    await server.stop(None)
    assert "not a gateway" in caught.value.lines()[0]


def test_traces_differ_and_are_well_formed() -> None:
    """As W3C Trace Context wants them, sampled."""
    one, other = Trace.begun(), Trace.begun()
    assert one != other
    ((key, value),) = one.metadata()
    version, trace_id, span_id, flags = value.split("-")
    assert (key, version, len(trace_id), len(span_id), flags) == ("traceparent", "00", 32, 16, "01")
    assert int(trace_id, 16) * int(span_id, 16) > 0


async def test_every_call_to_a_gateway_brings_the_key(tmp_path: Path) -> None:
    """From the environment, whatever command makes it; who has none, or a bad one, is told so."""
    orchestrator = FakeOrchestrator()
    async with (
        serve_fakes(orchestrator, FakeLimiter()) as fakes,  # type: ignore[abstract]  # The RPCs it lacks answer UNIMPLEMENTED.
        application(configured(fakes.address, {"team-a": {"keys": [entry_of("alice")]}})) as server,
    ):
        for command in (("ask", "q", "--json"), ("models",), ("profiles",)):
            commands = [
                ensemble(*command, "--gateway", server.address, folder=tmp_path, environ={API_KEY: key}) for key in (key_of("alice"), key_of("bob"), "")
            ]
            good, bad, none = await asyncio.gather(*commands)
            assert (good.code, bad.code, none.code) == (0, 2, 2)
            assert "the key is not valid" in bad.err + bad.text
            assert "authorization: Bearer KEY" in (none.err + none.text).replace('\\"', '"')
            assert key_of("bob") not in bad.err + bad.text
