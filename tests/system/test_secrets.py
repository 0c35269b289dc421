"""Secrets of every kind are planted wherever one may be; every path is run, failures above all; nothing of a secret is found in what was written or told.

Another kind of secret is one more line of the table in `tests.support.planted_secrets`, planted where the others are.
"""

import asyncio
import json
import os
import signal
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import yaml

from ensemble.v1 import gateway_service_pb2
from services.chassis.api_keys import new_key
from tests.support.command_line import NOWHERE, ended
from tests.support.crashing_service import SERVICE as CRASHING
from tests.support.fake_provider import Answer, FakeProvider, Hang
from tests.support.otlp_receiver import otlp_receiver
from tests.support.planted_secrets import MARKER, TABLE, PlantedSecrets, Written, nothing_of
from tests.support.redis_server import RedisServer, redis_server
from tests.support.secretive_services import SecretiveServices, bad_days, until
from tests.support.service_processes import SERVICES, started
from tests.support.stack import MEMBERS, WRITER


@pytest.fixture
def planted() -> PlantedSecrets:
    """Return fresh secrets."""
    return PlantedSecrets(TABLE)


@pytest.fixture
def written() -> Written:
    """Return what is about to be written."""
    return Written()


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: text,
        lambda text: text[: len(text) // 2],
        lambda text: text[-(len(text) // 2) :],
        lambda text: text.upper(),
        repr,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: text.encode().hex(),
        lambda text: quote(text, safe=""),
        *(lambda text, before=before: b64encode(b"x" * before + text.encode()).decode() for before in range(3)),
        *(lambda text, before=before: urlsafe_b64encode(b"x" * before + text.encode()).decode() for before in range(3)),
    ],
)
def test_a_secret_is_found_whatever_it_looks_like(planted: PlantedSecrets, disguise: Callable[[str], str]) -> None:
    """Whole or half, small or capital, escaped or encoded, each one of the table; and nothing is found where nothing is."""
    for secret in planted:
        hits = planted.found_in({"a log": f"before {disguise(secret.text)} after"})
        assert hits
        assert {hit.split(" (")[0] for hit in hits} == {secret.name}
    assert planted.found_in({"a log": "nothing " * 1000 + repr(list(planted)) + new_key()}) == []


async def _good_runs(services: SecretiveServices) -> None:
    """Unary and streamed, cached, replayed."""
    for streamed in (False, True):
        assert await services.ask(streamed=streamed, include_candidates=True) == "OK"
        assert await services.ask(streamed=streamed, strategy="best_of_n") == "OK"
        for _ in range(2):
            assert await services.ask(streamed=streamed, profile="cached", metadata=services.bearer("bob's key")) == "OK"
            assert await services.ask(streamed=streamed, request_id=f"again-{streamed}") == "OK"
    for call in (
        services.stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=services.bearer("alice's key")),
        services.stub.ListModels(gateway_service_pb2.ListModelsRequest(), metadata=services.bearer("alice's key")),
    ):
        assert await services.told(call) == "OK"


async def _refusals(services: SecretiveServices) -> None:
    """What is wrong, not known, not allowed, or from a stranger."""
    planted = services.planted
    wrong: list[dict[str, Any]] = [
        {"prompt": planted["prompt"] + "\x00"},
        {"system": planted["system text"] + "\x07", "generation": {"temperature": 7}},
        {"labels": {planted["name of a label"]: planted["label"], "x": planted["label"] * 1000}},
        {"response_schema": planted["schema"]},
        {"response_schema": json.dumps({"type": planted["schema"]})},
        {"options": {"parameters": {planted["schema"]: planted["schema"]}}},
        {"members": [{"model": MEMBERS[0], "persona": planted["persona"] + "\x00"}]},
        {"request_id": "again-True", "prompt": planted["prompt"] + " and another"},
    ]
    for streamed in (False, True):
        for fields in wrong:
            assert await services.ask(streamed=streamed, **fields) == "INVALID_ARGUMENT", fields
        for fields in (
            {"profile": MARKER},
            {"profile": planted["pasted key"]},
            {"members": [{"model": planted["pasted key"]}]},
            {"strategy": planted["pasted key"]},
        ):
            assert await services.ask(streamed=streamed, **fields) in {"NOT_FOUND", "INVALID_ARGUMENT"}
        assert await services.ask(streamed=streamed, metadata=services.bearer("bob's key")) == "PERMISSION_DENIED"
        (alice,), (stranger,) = services.bearer("alice's key"), services.bearer("stranger's key")
        misplaced = planted["misplaced credentials"]
        strangers: list[tuple[tuple[str, str | bytes], ...]] = [
            (stranger,),
            (alice, stranger),
            (("authorization", planted["stranger's key"]),),
            (("authorization", f"Basic {b64encode(misplaced.encode()).decode()}"), ("cookie", misplaced), ("x-api-key", misplaced)),
            (("x-api-key", planted["alice's key"]), ("cookie", "key=" + planted["alice's key"])),
            (("authorization-bin", planted["alice's key"].encode()), ("key-bin", misplaced.encode())),
        ]
        for metadata in strangers:
            assert await services.ask(streamed=streamed, metadata=metadata) == "UNAUTHENTICATED"
        # What is not looked at does no harm.
        assert await services.ask(streamed=streamed, metadata=(alice, ("x-api-key", misplaced), ("key-bin", misplaced.encode()))) == "OK"


async def _failing_providers(services: SecretiveServices, provider: FakeProvider) -> None:
    """Each kind of failure, at a member and at the refiner."""
    replies = bad_days(services.planted["provider's words"], services.planted["answer"])
    codes = await asyncio.gather(
        *(services.ask(streamed=streamed, strategy="single", members=[{"model": name}], timeout=8) for name in replies for streamed in (False, True))
    )
    assert "INTERNAL" not in codes
    assert "OK" not in codes
    for reply in (replies["status-500"], replies["no-json"]):
        provider.script(WRITER, reply)
        assert await services.ask(include_candidates=True) == "OK"
    provider.script(WRITER, Answer(text=services.planted["answer"]))


async def _broken_files(services: SecretiveServices) -> None:
    """A key is revoked, and the keys file, the configuration and a certificate are broken, each with a secret in the wrong place."""
    key, good = services.planted["pasted key"], services.keys_file.read_text("utf-8")
    services.write(services.keys_file, {"narrow": []})

    async def revoked() -> bool:
        return await services.ask(metadata=services.bearer("bob's key")) == "UNAUTHENTICATED"

    await until(revoked)
    services.write(services.keys_file, {"narrow": [{"sha256": key}, {"sha256": key[:40], "id": key}, key, {key: key}], key: [{"sha256": key}]})
    await services.logs("gateway", "the keys file is wrong")
    tree = {**services.tree, "tenants": {MARKER: {"keys": [key, {"sha256": key}], "sans": [key]}, key: {"keys": []}}}
    services.write(services.path, {**tree, "providers": {**services.tree["providers"], "more": {"kind": "openai", "base_url": "http://x", "api_key": key}}})
    for name in ("gateway", "limiter"):
        await services.logs(name, "the configuration is wrong")
    own, shown = (folder.files.certificate.read_bytes() for folder in (services.own, services.shown) if folder.files.certificate is not None)
    services.own.put_file("certificate.pem", (services.folder / "own" / "key.pem").read_bytes())
    services.shown.put_file("certificate.pem", (services.folder / "shown" / "key.pem").read_bytes()[:-20])
    await asyncio.gather(
        services.logs("gateway", "the certificates of gateway.tls cannot be used"), services.logs("limiter", "the certificates of tls cannot be used")
    )
    services.own.put_file("certificate.pem", own)
    services.shown.put_file("certificate.pem", shown)
    services.write(services.path, services.tree)
    services.keys_file.write_text(good, "utf-8")


async def _outages(services: SecretiveServices, server: RedisServer, provider: FakeProvider, stack: AsyncExitStack) -> None:
    """Redis down, and with a password that it does not know; limiter and orchestrator gone in a run; the signal to end in a run."""
    await server.kill()
    for streamed in (False, True):
        await services.ask(streamed=streamed)
        await services.ask(streamed=streamed, request_id=f"down-{streamed}")
    await services.logs("limiter", "the store is down")
    await server.start()
    services.planted.add("wrong password", f"wrong-{new_key()}", "variable REDIS_PASSWORD, where Redis has another one")
    for name in ("limiter", "gateway"):
        path = services.folder / f"{name}-alone" / "ensemble.yaml"
        path.parent.mkdir()
        services.write(path, {**services.tree, name: {**services.tree[name], "listen": "127.0.0.1:0"}})
        process = await started(stack, name, path, {**services.environ, "REDIS_PASSWORD": services.planted["wrong password"]})

        await services.logs(f"{name}-alone/{name}", "the store is down")
        process.terminate()
        assert await process.wait() == 0
    await services.settled()

    for name in ("limiter", "orchestrator"):
        provider.script(MEMBERS[0], Hang())
        asked = len(provider.asked(MEMBERS[0]))
        asking = [asyncio.ensure_future(services.ask(streamed=streamed)) for streamed in (False, True)]
        await provider.started(MEMBERS[0], asked + 1)
        # Dies with its stacks on standard error.
        services.processes[name].send_signal(signal.SIGABRT)
        await services.processes[name].wait()
        await asyncio.gather(*asking)
        assert await services.ask() == "UNAVAILABLE"
        assert "Fatal Python error: Aborted" in services.log(name)
        provider.script(MEMBERS[0], Answer(text=services.planted["answer"]))
        await services.start(name)
        await services.settled()

    provider.script(MEMBERS[0], Hang())
    asked = len(provider.asked(MEMBERS[0]))
    asking = [asyncio.ensure_future(services.ask(streamed=streamed, timeout=10)) for streamed in (False, True)]
    await provider.started(MEMBERS[0], asked + 1)
    for process in services.processes.values():
        process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)
    assert [await process.wait() for process in services.processes.values()] == [0] * 4


@pytest.mark.timeout(300)
async def test_no_secret_leaves_the_services(tmp_path: Path, provider: FakeProvider, planted: PlantedSecrets, written: Written) -> None:
    """Whatever happens to the four of them: nothing in their logs, in what they export, in their errors; in answers nothing but the answer."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server("--requirepass", planted["redis password"]))
        receiver = await stack.enter_async_context(otlp_receiver())
        services = SecretiveServices(tmp_path, planted, written, stack)
        await services.configure(provider, server, receiver)
        for name in SERVICES:
            await services.start(name)
        await services.open()
        await _good_runs(services)
        await _refusals(services)
        await _failing_providers(services, provider)
        await _broken_files(services)
        await _outages(services, server, provider, stack)
        written.add("spans and metrics", b"\n".join(receiver.exports))
    for pattern in ("*.log", "*/*.log"):
        written.add_files(tmp_path, pattern)
    nothing_of(planted, written)
    # A profile is listed with the personas of its members.
    nothing_of(planted, services.answers, but=("answer", "persona"))
    # The secrets were there: the providers got their keys, the models the texts.
    assert {request.headers["authorization"] for request in provider.requests} == {f"Bearer {planted[name]}" for name in ("provider key", "other provider key")}
    assert planted.found_in({"requests": "".join(str(request.body) for request in provider.requests)}) != []
    # And what was searched is what was written.
    told = {name: MARKER.encode() in content for name, content in written.texts.items()}
    assert all(told[name] for name in ("gateway.log", "spans and metrics", "errors")), told
    assert "answer" in {hit.split(" (")[0] for hit in planted.found_in(services.answers.texts)}


async def _crashing(folder: Path, crash: str, secret: str, endpoint: str) -> asyncio.subprocess.Process:
    path = folder / "crashing.yaml"
    path.write_text(yaml.safe_dump({"telemetry": {"endpoint": endpoint}}), "utf-8")
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "faulthandler", "-m", "tests.support.crashing_service", "--config", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CRASH": crash, "SECRET_OF_CRASH": secret},
    )


async def test_a_bug_tells_its_kind_and_place_alone(tmp_path: Path, planted: PlantedSecrets, written: Written) -> None:
    """Raised by handlers, and by tasks, callbacks, threads and destructors that nobody waits for: the log has the kind of each, and nothing it says."""
    async with otlp_receiver() as receiver:
        process = await _crashing(tmp_path, "handler", planted["provider key"], receiver.endpoint)
        assert process.stderr is not None
        line = b""
        async with asyncio.timeout(40):
            while b" listens on " not in line:
                line = await process.stderr.readline()
                assert line
        address = json.loads(line)["message"].rpartition(" ")[2]
        async with grpc.aio.insecure_channel(address) as channel:
            prompt = planted["prompt"].encode()
            calls: tuple[Any, ...] = (channel.unary_unary(f"/{CRASHING}/Unary"), channel.unary_stream(f"/{CRASHING}/Stream"))
            for call in calls:
                calling: Any = call(prompt, timeout=20)
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await (calling if hasattr(calling, "__await__") else _drained(calling))
                assert raised.value.code() is grpc.StatusCode.INTERNAL
                written.add("errors", f"{raised.value!r} {raised.value.trailing_metadata()}")
            elsewhere: Any = channel.unary_unary(f"/{CRASHING}/Elsewhere")
            assert await elsewhere(b"", timeout=20) == b"done"
        process.terminate()
        told = await ended(process)
        written.add("spans and metrics", b"\n".join(receiver.exports))
    written.add("log", told.err)
    written.add("log", told.out)
    assert told.code == 0
    nothing_of(planted, written)
    lines = [json.loads(line) for line in told.err.splitlines()]
    # Each of the six is told.
    assert [line.get("exception") or line["message"].rpartition(" ")[2] for line in lines if line["level"] == "ERROR"] == ["Crash"] * 6
    assert "crashing_service.py:" in told.err


async def _drained(call: Any) -> None:
    async for _ in call:
        pass


async def test_a_service_that_dies_of_a_bug_tells_its_kind_and_place_alone(tmp_path: Path, planted: PlantedSecrets, written: Written) -> None:
    """Exit code 1 and one line."""
    told = await ended(await _crashing(tmp_path, "start", planted["provider key"], NOWHERE))
    written.add("output", told.err)
    written.add("output", told.out)
    assert told.code == 1
    nothing_of(planted, written)
    (line,) = [json.loads(line) for line in told.err.splitlines()]
    assert line["message"].endswith(": Crash")
    assert "crashing_service.py:" in line["where"]
