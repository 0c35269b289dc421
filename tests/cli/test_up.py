"""The four services in one process, in the right order, wired to each other's real addresses."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, limiter_service_pb2, limiter_service_pb2_grpc
from services.chassis.configuration import Configuration, load_configuration
from services.chassis.reloading import ConfigurationSource
from services.chassis.server import CannotListenError
from services.cli import local_model
from services.cli.up import PACKAGED_URL, running, wants_embedded_model
from tests.support.command_line import begin, ended, ensemble
from tests.support.fake_provider import FakeProvider
from tests.support.stack import configured

NO_LOCAL = {"local": None, "single": None}
HOSTED = {"providers": {"h": {"kind": "openai", "base_url": "http://127.0.0.1:9"}}, "models": {"m": {"provider": "h", "name": "x"}}}
PROFILE = {"strategy": "single", "members": [{"model": "m"}], "quorum": 1, "refiner": None}
FILE = json.dumps({**HOSTED, "profiles": {"default": PROFILE, **NO_LOCAL}})
"""YAML, of which JSON is a part."""


def _configuration(**overrides: object) -> Configuration:
    return load_configuration(environ={}, folder=Path(__file__).parent, overrides=overrides)


async def _free_base() -> int:
    """Return the first of four ports that were free a moment ago."""
    # Below the ports that outgoing connections take, and not where another run of these tests begins.
    for base in range(20_000 + 4 * (os.getpid() % 2500), 32_700, 4):
        taken = False
        for port in range(base, base + 4):
            try:
                server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
            except OSError:
                taken = True
                break
            server.close()
            await server.wait_closed()
        if not taken:
            return base
    raise AssertionError("no four free ports in a row")


async def test_consecutive_ports() -> None:
    """They are those that were asked for, in the documented order."""
    base = await _free_base()
    async with FakeProvider() as provider, running(configured(provider), port_base=base, embedded_model=False) as services:
        assert services.addresses() == {
            "gateway": f"127.0.0.1:{base}",
            "orchestrator": f"127.0.0.1:{base + 1}",
            "limiter": f"127.0.0.1:{base + 2}",
            "refiner": f"127.0.0.1:{base + 3}",
        }
        assert (services.model_url, services.traces_to) == (None, None)


async def test_configured_addresses_are_used_and_wired() -> None:
    """Even where the configuration leaves a port free, each service finds those it calls."""
    listen = {name: {"listen": "127.0.0.1:0"} for name in ("gateway", "orchestrator", "limiter", "refiner")}
    async with FakeProvider() as provider, running(configured(provider, **listen)) as services, grpc.aio.insecure_channel(services.gateway.address) as channel:
        stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        response = await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="What?"), timeout=10, wait_for_ready=True)
        assert response.answer == "an answer from writer"


async def test_limits_are_read_again(tmp_path: Path) -> None:
    """A changed file changes the limits of the limiter that runs here."""
    file = tmp_path / "ensemble.yaml"
    file.touch()
    async with FakeProvider() as provider:
        changed = configured(provider, models={"alpha": {"limits": {"concurrency": 7}}})
        source = ConfigurationSource(file=file, read=lambda: changed)
        async with (
            running(configured(provider), port_base=0, embedded_model=False, source=source) as services,
            grpc.aio.insecure_channel(services.limiter.address) as channel,
        ):
            stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(channel)
            file.write_text("changed", encoding="utf-8")
            async with asyncio.timeout(30):
                async for state in stub.WatchState(limiter_service_pb2.WatchStateRequest(models=["alpha"])):
                    levels = [level.limit for model in state.models for level in model.limits if level.name == "concurrency"]
                    if state.config_version == 2 and levels == [7]:
                        break


async def test_a_taken_port_stops_those_that_ran() -> None:
    """The gateway cannot listen, so the other three are gone again."""
    base = await _free_base()
    async with FakeProvider() as provider:
        blocker = await asyncio.start_server(lambda *_: None, "127.0.0.1", base)
        try:
            with pytest.raises(CannotListenError, match=str(base)):
                async with running(configured(provider), port_base=base, embedded_model=False):
                    raise AssertionError("it must not get here")
        finally:
            blocker.close()
            await blocker.wait_closed()
        async with running(configured(provider), port_base=base, embedded_model=False):
            pass


async def test_up_says_plainly_that_a_port_is_taken(tmp_path: Path) -> None:
    """One sentence and exit code 1."""
    await asyncio.to_thread((tmp_path / "ensemble.yaml").write_text, FILE)
    blocker = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = blocker.sockets[0].getsockname()[1]
    done = await ensemble("up", folder=tmp_path, environ={"ENSEMBLE__GATEWAY__LISTEN": f"127.0.0.1:{port}", **_free("ORCHESTRATOR", "LIMITER", "REFINER")})
    blocker.close()
    assert (done.code, done.out) == (1, b"")
    assert f"cannot listen on 127.0.0.1:{port}" in done.err
    assert "Traceback" not in done.err


def _free(*services: str) -> dict[str, str]:
    return {f"ENSEMBLE__{name}__LISTEN": "127.0.0.1:0" for name in services}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_up_tells_its_addresses_and_stops_from_the_outside_in(tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends it with 0: whoever calls stops before those it calls; `health` finds all four while it runs, and none afterwards."""
    await asyncio.to_thread((tmp_path / "ensemble.yaml").write_text, FILE)
    base = await _free_base()
    process = await begin("up", "--port-base", str(base), folder=tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        told = dict([(await process.stdout.readline()).decode().split() for _ in range(6)])
    assert told == {
        **{name: f"127.0.0.1:{base + offset}" for offset, name in enumerate(("gateway", "orchestrator", "limiter", "refiner"))},
        "model": "none",
        "traces": "off",
    }
    async with asyncio.timeout(20):
        while (done := await ensemble("health", "--port-base", str(base))).code != 0:
            # The gateway is ready once its channel to the orchestrator is.
            await asyncio.sleep(0.05)
    assert done.text.count("SERVING") == 8
    process.send_signal(number)
    stopped = await ended(process)
    assert stopped.code == 0
    lines = [json.loads(line) for line in stopped.err.splitlines()]
    order = [match[1] for line in lines if (match := re.fullmatch(r"ensemble\.v1\.(\w+)Service stopped", line["message"]))]
    assert order == ["Gateway", "Orchestrator", "Refiner", "Limiter"]
    assert (await ensemble("health", "--port-base", str(base))).code == 3


async def test_up_does_not_go_by_a_changed_file_that_no_strategy_would_take(tmp_path: Path) -> None:
    """What is refused at the start is refused later too: it is said in the log, and nothing changes."""
    file = tmp_path / "ensemble.yaml"
    await asyncio.to_thread(file.write_text, FILE)
    process = await begin("up", "--port-base", "0", folder=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(30):
        for _ in range(6):
            await process.stdout.readline()
        await asyncio.to_thread(file.write_text, FILE.replace('"single", "members"', '"singel", "members"'))
        process.send_signal(signal.SIGHUP)
        line = b""
        while b"is wrong" not in line:
            line = await process.stderr.readline()
            assert line
    process.terminate()
    assert (await ended(process)).code == 0
    assert b"profiles.default.strategy" in line


def test_the_embedded_model_runs_where_a_profile_uses_it() -> None:
    """That is so by default; not where no profile does, nor where somebody runs a server of his own under that name, or none at all."""
    assert local_model.installed()
    assert wants_embedded_model(_configuration())
    assert _configuration().providers["local"].base_url == PACKAGED_URL
    assert not wants_embedded_model(_configuration(**HOSTED, profiles={"default": PROFILE, **NO_LOCAL}))
    assert not wants_embedded_model(_configuration(providers={"local": {"base_url": "http://127.0.0.1:1234/v1"}}))
    without = {**HOSTED, "providers": {**HOSTED["providers"], "local": None}, "models": {**HOSTED["models"], "smollm2": None}}
    assert not wants_embedded_model(_configuration(**without, profiles={"default": PROFILE, **NO_LOCAL}))
    by_refiner = {"strategy": "fusion", "members": [{"model": "m"}, {"model": "m"}], "refiner": {"model": "smollm2"}}
    assert wants_embedded_model(_configuration(**HOSTED, profiles={"default": by_refiner, **NO_LOCAL}))


def test_without_its_packages_only_those_who_need_the_model_miss_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the default profile is a hosted one, the others are named and the services run; else starting it tells what is missing."""
    assert wants_embedded_model(_configuration(), installed=False)
    assert capsys.readouterr().err == ""
    assert not wants_embedded_model(_configuration(**HOSTED, profiles={"default": PROFILE}), installed=False)
    assert "not installed" in capsys.readouterr().err
    assert not wants_embedded_model(_configuration(**HOSTED, profiles={"default": PROFILE, **NO_LOCAL}), installed=False)
    assert capsys.readouterr().err == ""


async def test_the_embedded_model_answers_where_it_really_listens() -> None:
    """The packaged profiles ask the port that the system gave it."""
    async with running(load_configuration(environ={}, folder=Path(__file__).parent), port_base=0) as services:
        assert services.model_url not in {None, PACKAGED_URL}
        async with grpc.aio.insecure_channel(services.gateway.address) as channel:
            stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
            request = gateway_service_pb2.GenerateRequest(prompt="Say hello.", profile="single")
            request.generation.max_output_tokens = 4
            assert (await stub.Generate(request, timeout=90, wait_for_ready=True)).answer
