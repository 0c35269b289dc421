"""Secrets of every kind are planted wherever one may be; every path is run, failures above all; nothing of a secret is found in what was written or told.

Another kind of secret is one more line of `TABLE`, planted where the tests below plant the others.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from pprint import pformat
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import yaml
from pydantic import SecretStr

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.chassis.api_keys import new_key, sha256_of
from services.chassis.certificates import read_certificates
from services.chassis.configuration import Configuration, ConfigurationError, load_configuration, render
from services.chassis.telemetry import TelemetrySettings
from services.cli.connection import Connection, gateway_tls, services_tls
from services.cli.strategies import known_strategies
from services.gateway.settings import GatewaySettings
from services.limiter.settings import LimiterSettings
from services.models.catalogue import Catalogue
from services.orchestrator.settings import OrchestratorSettings
from services.refiner.settings import RefinerSettings
from tests.support.certificates import HERE, Authority, CertificateFolder
from tests.support.command_line import NOWHERE, ended, ensemble
from tests.support.crashing_service import SERVICE as CRASHING
from tests.support.fake_provider import Answer, FakeProvider, Hang, Raw, Reply, Reset, Status, Stream, chunk, event, http
from tests.support.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.support.planted_secrets import PlantedSecrets, Written
from tests.support.redis_server import RedisServer, redis_server
from tests.support.service_processes import SERVICES, configured_file, started
from tests.support.stack import MEMBERS, WRITER

TABLE = (
    ("provider key", "sk-or-v1-{}", "variable FAKE_API_KEY"),
    ("other provider key", "sk-proj-{}", "file of provider `filed`"),
    ("redis password", "redis-{}", "variable REDIS_PASSWORD"),
    ("variable of others", "aws/{}+=", "variable AWS_SECRET_ACCESS_KEY"),
    ("alice's key", "KEY", "authorization; its hash with the tenant"),
    ("bob's key", "KEY", "authorization; its hash in the keys file"),
    ("stranger's key", "KEY", "authorization"),
    ("pasted key", "KEY", "plain in the keys file, among the keys of a tenant, as a profile's name"),
    ("misplaced credentials", "misplaced {}", "x-api-key, cookie, basic authorization, -bin metadata"),
    ("tls key", "PEM", "tls.key"),
    ("gateway's tls key", "PEM", "gateway.tls.key"),
    ("prompt", 'a "prompt"\n{} für 100%', "prompt"),
    ("system text", "<system> {} </system>", "system"),
    ("persona", "You are {}.", "persona of a member"),
    ("label", "label {}", "value of a label"),
    ("name of a label", "Label {}", "name of a label that is refused"),
    ("schema", "schema {}", "response_schema that is none, and parameters"),
    ("answer", "the 'answer' {}\té", "answers of models"),
    ("provider's words", "provider says {}", "bodies and headers of a provider's errors"),
)
MARKER = "an-ordinary-name"
"""A name that is no secret, and is expected in logs, spans and errors: what is searched is what was written."""


@pytest.fixture
def planted() -> PlantedSecrets:
    """Return fresh secrets."""
    return PlantedSecrets(TABLE)


@pytest.fixture
def written() -> Written:
    """Return what is about to be written."""
    return Written()


async def _until(reached: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await reached():
            await asyncio.sleep(0.05)


def _nothing_of(planted: PlantedSecrets, written: Written, *, but: Sequence[str] = ()) -> None:
    assert not (hits := planted.found_in(written.texts, but=but)), "\n".join(hits)


# --- The search itself. ---


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


# --- The four services. ---


def _replies(words: str, answer: str) -> dict[str, Reply]:
    """Return what providers do on their bad days, by the name of the model that meets it, each with the provider's words in every place."""
    error = {"error": {"message": words, "type": words, "code": words, "param": words, "metadata": {"raw": words}}}
    headers = dict.fromkeys(("x-request-id", "www-authenticate", "set-cookie", "location", "retry-after", "content-language"), words)
    begun = event(chunk({"content": answer}))
    return {
        **{f"status-{code}": Status(code, headers, error) for code in (302, 400, 401, 403, 429, 500, 503)},
        "bare-words": Status(500, headers, words),
        "no-http": Raw(f"{words}\r\n\r\n".encode()),
        "no-status": Raw(f"HTTP/1.1 {words} {words}\r\n\r\n".encode()),
        "no-json": Raw(http(200, f'{{"{words}'.encode(), {"content-type": "application/json"})),
        "cut-off": Stream(events=[begun], end="close"),
        "error-event": Stream(events=[begun, event(error)]),
        "bad-event": Stream(events=[f"data: {{{words}\n\n".encode()], headers={"x-trace": words}),
        "bad-chunks": Stream(events=[begun], end="garbage"),
        "stalls": Stream(events=[begun], end="hang"),
        "hangs": Hang(),
        "resets": Reset(),
    }


class House:
    """The four services with secrets in everything that holds one, and their callers."""

    def __init__(self, folder: Path, planted: PlantedSecrets, written: Written, stack: AsyncExitStack) -> None:
        self.planted = planted
        self.written = written
        self.folder = folder
        self.keys_file = folder / "keys.yaml"
        self.answers = Written()
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self._stack = stack
        self._authority = Authority()
        pairs = {name: self._authority.issue(*HERE) for name in ("tls key", "gateway's tls key")}
        for name, pair in pairs.items():
            planted.add_pem(name, pair.key, "PEM file")
        self.own = CertificateFolder.with_pair(folder / "own", pairs["tls key"], self._authority.pem)
        self.shown = CertificateFolder.with_pair(folder / "shown", pairs["gateway's tls key"], self._authority.pem)
        self.path = folder / "ensemble.yaml"
        self.addresses: dict[str, str] = {}
        self.tree: dict[str, Any] = {}
        self.stub: Any = None

    @property
    def environ(self) -> dict[str, str]:
        """What the services find in their environment."""
        return {
            "FAKE_API_KEY": self.planted["provider key"],
            "REDIS_PASSWORD": self.planted["redis password"],
            "AWS_SECRET_ACCESS_KEY": self.planted["variable of others"],
            "PYTHONFAULTHANDLER": "1",
        }

    async def configure(self, provider: FakeProvider, server: RedisServer, receiver: OtlpReceiver) -> None:
        """Write the configuration, the keys file and the file of a secret."""
        for model, reply in _replies(self.planted["provider's words"], self.planted["answer"]).items():
            provider.script(model, reply)
        for model in (*MEMBERS, WRITER):
            provider.script(model, Answer(text=self.planted["answer"]))
        self.path, self.addresses = await configured_file(self.folder, provider, {"timeout": "1s"})
        tree = yaml.safe_load(self.path.read_text("utf-8"))
        (self.folder / "filed").write_text(self.planted["other provider key"] + "\n", "utf-8")
        url = provider.base_url
        tree["providers"] = {
            "fake": {"kind": "openai", "base_url": url, "api_key": {"env": "FAKE_API_KEY"}},
            "filed": {"kind": "openai", "base_url": url, "api_key": {"file": str(self.folder / "filed")}},
        }
        tree["models"] |= {name: {"provider": "fake", "name": name, "timeout": "1s"} for name in _replies("", "")}
        tree["models"][WRITER]["provider"] = "filed"
        tree["tls"] = self.own.section
        tree["telemetry"] = {"endpoint": receiver.endpoint}
        tree["limiter"]["store"] = {"kind": "redis", "url": server.url, "password": {"env": "REDIS_PASSWORD"}, "timeout": "1s"}
        tree["gateway"] |= {
            "tls": {name: self.shown.section[name] for name in ("certificate", "key")},
            "keys_file": str(self.keys_file),
            "idempotency": {"store": "redis"},
            "cache": {"store": "redis"},
        }
        for name in SERVICES:
            tree[name]["grace"] = "1s"
        tree["tenants"] = {
            MARKER: {"keys": [{"sha256": sha256_of(self.planted["alice's key"]), "id": "alice"}]},
            "narrow": {"profiles": ["cached"]},
        }
        members = tree["profiles"]["default"]["members"]
        members[0]["persona"] = self.planted["persona"]
        tree["profiles"]["cached"] = {"strategy": "single", "members": [{"model": MEMBERS[0]}], "cache": {"ttl": "1h"}}
        self.tree = tree
        self.write(self.path, tree)
        self.write(self.keys_file, {"narrow": [{"sha256": sha256_of(self.planted["bob's key"]), "id": "bob"}]})

    def write(self, path: Path, tree: Mapping[str, Any]) -> None:
        """Replace a file as a whole."""
        draft = path.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(tree), "utf-8")
        draft.replace(path)

    async def start(self, name: str) -> None:
        """Start a service."""
        self.processes[name] = await started(self._stack, name, self.path, self.environ)

    async def open(self) -> None:
        """Open a channel to the gateway, and wait until the services have found each other."""
        credentials = grpc.ssl_channel_credentials(self._authority.pem)
        channel = await self._stack.enter_async_context(grpc.aio.secure_channel(self.addresses["gateway"], credentials))
        self.stub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        await self.settled()

    async def settled(self) -> None:
        """Wait until a run succeeds."""

        async def succeeds() -> bool:
            return await self.ask(timeout=10) == "OK"

        await _until(succeeds, 40)

    def log(self, name: str) -> str:
        """Return what a service has written so far."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    async def logs(self, name: str, words: str) -> None:
        """Wait until a service has written some words."""

        async def written() -> bool:
            return words in self.log(name)

        await _until(written)

    def bearer(self, holder: str) -> tuple[tuple[str, str], ...]:
        """Return what a call with a key brings with it."""
        return (("authorization", f"Bearer {self.planted[holder]}"),)

    async def ask(self, *, streamed: bool = False, metadata: tuple[tuple[str, str | bytes], ...] | None = None, timeout: float = 5.0, **fields: Any) -> str:
        """Ask the gateway, as alice unless it says otherwise; return the code, and keep whatever was told."""
        fields = {"prompt": self.planted["prompt"], "system": self.planted["system text"], "labels": {"team": self.planted["label"]}} | fields
        request = gateway_service_pb2.GenerateRequest(**fields)
        call: Any
        if streamed:
            call = self.stub.StreamGenerate(
                gateway_service_pb2.StreamGenerateRequest(generate=request), timeout=timeout, metadata=metadata or self.bearer("alice's key")
            )
        else:
            call = self.stub.Generate(request, timeout=timeout, metadata=metadata or self.bearer("alice's key"), wait_for_ready=True)
        return await self.told(call, streamed=streamed)

    async def told(self, call: Any, *, streamed: bool = False) -> str:
        """Wait for a call's end; return its code, and keep whatever was told."""
        try:
            if streamed:
                async for response in call:
                    self.answers.add("answers", str(response))
            else:
                self.answers.add("answers", str(await call))
        except grpc.aio.AioRpcError as error:
            trailers = b"".join(value if isinstance(value, bytes) else str(value).encode() for item in error.trailing_metadata() for value in item)
            self.written.add("errors", f"{error!r} {error.debug_error_string()} {error.initial_metadata()}")
            self.written.add("errors", trailers)
            return error.code().name
        self.written.add("metadata of answers", f"{await call.initial_metadata()} {await call.trailing_metadata()}")
        return "OK"


async def _good_runs(house: House) -> None:
    """Unary and streamed, cached, replayed."""
    for streamed in (False, True):
        assert await house.ask(streamed=streamed, include_candidates=True) == "OK"
        assert await house.ask(streamed=streamed, strategy="best_of_n") == "OK"
        for _ in range(2):
            assert await house.ask(streamed=streamed, profile="cached", metadata=house.bearer("bob's key")) == "OK"
            assert await house.ask(streamed=streamed, request_id=f"again-{streamed}") == "OK"
    for call in (
        house.stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=house.bearer("alice's key")),
        house.stub.ListModels(gateway_service_pb2.ListModelsRequest(), metadata=house.bearer("alice's key")),
    ):
        assert await house.told(call) == "OK"


async def _refusals(house: House) -> None:
    """What is wrong, not known, not allowed, or from a stranger."""
    planted = house.planted
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
            assert await house.ask(streamed=streamed, **fields) == "INVALID_ARGUMENT", fields
        for fields in (
            {"profile": MARKER},
            {"profile": planted["pasted key"]},
            {"members": [{"model": planted["pasted key"]}]},
            {"strategy": planted["pasted key"]},
        ):
            assert await house.ask(streamed=streamed, **fields) in {"NOT_FOUND", "INVALID_ARGUMENT"}
        assert await house.ask(streamed=streamed, metadata=house.bearer("bob's key")) == "PERMISSION_DENIED"
        (alice,), (stranger,) = house.bearer("alice's key"), house.bearer("stranger's key")
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
            assert await house.ask(streamed=streamed, metadata=metadata) == "UNAUTHENTICATED"
        # What is not looked at does no harm.
        assert await house.ask(streamed=streamed, metadata=(alice, ("x-api-key", misplaced), ("key-bin", misplaced.encode()))) == "OK"


async def _failing_providers(house: House, provider: FakeProvider) -> None:
    """Each kind of failure, at a member and at the refiner."""
    replies = _replies(house.planted["provider's words"], house.planted["answer"])
    codes = await asyncio.gather(
        *(house.ask(streamed=streamed, strategy="single", members=[{"model": name}], timeout=8) for name in replies for streamed in (False, True))
    )
    assert "INTERNAL" not in codes
    assert "OK" not in codes
    for reply in (replies["status-500"], replies["no-json"]):
        provider.script(WRITER, reply)
        assert await house.ask(include_candidates=True) == "OK"
    provider.script(WRITER, Answer(text=house.planted["answer"]))


async def _broken_files(house: House) -> None:
    """A key is revoked, and the keys file, the configuration and a certificate are broken, each with a secret in the wrong place."""
    key, good = house.planted["pasted key"], house.keys_file.read_text("utf-8")
    house.write(house.keys_file, {"narrow": []})

    async def revoked() -> bool:
        return await house.ask(metadata=house.bearer("bob's key")) == "UNAUTHENTICATED"

    await _until(revoked)
    house.write(house.keys_file, {"narrow": [{"sha256": key}, {"sha256": key[:40], "id": key}, key, {key: key}], key: [{"sha256": key}]})
    await house.logs("gateway", "the keys file is wrong")
    tree = {**house.tree, "tenants": {MARKER: {"keys": [key, {"sha256": key}], "sans": [key]}, key: {"keys": []}}}
    house.write(house.path, {**tree, "providers": {**house.tree["providers"], "more": {"kind": "openai", "base_url": "http://x", "api_key": key}}})
    for name in ("gateway", "limiter"):
        await house.logs(name, "the configuration is wrong")
    own, shown = (folder.files.certificate.read_bytes() for folder in (house.own, house.shown) if folder.files.certificate is not None)
    house.own.put_file("certificate.pem", (house.folder / "own" / "key.pem").read_bytes())
    house.shown.put_file("certificate.pem", (house.folder / "shown" / "key.pem").read_bytes()[:-20])
    await asyncio.gather(
        house.logs("gateway", "the certificates of gateway.tls cannot be used"), house.logs("limiter", "the certificates of tls cannot be used")
    )
    house.own.put_file("certificate.pem", own)
    house.shown.put_file("certificate.pem", shown)
    house.write(house.path, house.tree)
    house.keys_file.write_text(good, "utf-8")


async def _outages(house: House, server: RedisServer, provider: FakeProvider, stack: AsyncExitStack) -> None:
    """Redis down, and with a password that it does not know; limiter and orchestrator gone in a run; the signal to end in a run."""
    await server.kill()
    for streamed in (False, True):
        await house.ask(streamed=streamed)
        await house.ask(streamed=streamed, request_id=f"down-{streamed}")
    await house.logs("limiter", "the store is down")
    await server.start()
    house.planted.add("wrong password", f"wrong-{new_key()}", "variable REDIS_PASSWORD, where Redis has another one")
    for name in ("limiter", "gateway"):
        path = house.folder / f"{name}-alone" / "ensemble.yaml"
        path.parent.mkdir()
        house.write(path, {**house.tree, name: {**house.tree[name], "listen": "127.0.0.1:0"}})
        process = await started(stack, name, path, {**house.environ, "REDIS_PASSWORD": house.planted["wrong password"]})

        await house.logs(f"{name}-alone/{name}", "the store is down")
        process.terminate()
        assert await process.wait() == 0
    await house.settled()

    for name in ("limiter", "orchestrator"):
        provider.script(MEMBERS[0], Hang())
        asked = len(provider.asked(MEMBERS[0]))
        asking = [asyncio.ensure_future(house.ask(streamed=streamed)) for streamed in (False, True)]
        await provider.started(MEMBERS[0], asked + 1)
        # Dies with its stacks on standard error.
        house.processes[name].send_signal(signal.SIGABRT)
        await house.processes[name].wait()
        await asyncio.gather(*asking)
        assert await house.ask() == "UNAVAILABLE"
        assert "Fatal Python error: Aborted" in house.log(name)
        provider.script(MEMBERS[0], Answer(text=house.planted["answer"]))
        await house.start(name)
        await house.settled()

    provider.script(MEMBERS[0], Hang())
    asked = len(provider.asked(MEMBERS[0]))
    asking = [asyncio.ensure_future(house.ask(streamed=streamed, timeout=10)) for streamed in (False, True)]
    await provider.started(MEMBERS[0], asked + 1)
    for process in house.processes.values():
        process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)
    assert [await process.wait() for process in house.processes.values()] == [0] * 4


async def test_no_secret_leaves_the_services(tmp_path: Path, provider: FakeProvider, planted: PlantedSecrets, written: Written) -> None:
    """Whatever happens to the four of them: nothing in their logs, in what they export, in their errors; in answers nothing but the answer."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server("--requirepass", planted["redis password"]))
        receiver = await stack.enter_async_context(otlp_receiver())
        house = House(tmp_path, planted, written, stack)
        await house.configure(provider, server, receiver)
        for name in SERVICES:
            await house.start(name)
        await house.open()
        await _good_runs(house)
        await _refusals(house)
        await _failing_providers(house, provider)
        await _broken_files(house)
        await _outages(house, server, provider, stack)
        written.add("spans and metrics", b"\n".join(receiver.exports))
    for pattern in ("*.log", "*/*.log"):
        written.add_files(tmp_path, pattern)
    _nothing_of(planted, written)
    # A profile is listed with the personas of its members.
    _nothing_of(planted, house.answers, but=("answer", "persona"))
    # The secrets were there: the providers got their keys, the models the texts.
    assert {request.headers["authorization"] for request in provider.requests} == {f"Bearer {planted[name]}" for name in ("provider key", "other provider key")}
    assert planted.found_in({"requests": "".join(str(request.body) for request in provider.requests)}) != []
    # And what was searched is what was written.
    told = {name: MARKER.encode() in content for name, content in written.texts.items()}
    assert all(told[name] for name in ("gateway.log", "spans and metrics", "errors")), told
    assert "answer" in {hit.split(" (")[0] for hit in planted.found_in(house.answers.texts)}


# --- Bugs. ---


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
    _nothing_of(planted, written)
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
    _nothing_of(planted, written)
    (line,) = [json.loads(line) for line in told.err.splitlines()]
    assert line["message"].endswith(": Crash")
    assert "crashing_service.py:" in line["where"]


# --- The configuration. ---


def _tree(folder: Path) -> dict[str, Any]:
    """Return a configuration that is right, with a secret wherever one may be named."""
    own = CertificateFolder(folder=folder / "own").section
    return {
        "providers": {
            "fake": {"kind": "openai", "base_url": "http://127.0.0.1:9", "api_key": {"env": "FAKE_API_KEY"}},
            "filed": {"kind": "openai", "base_url": "http://127.0.0.1:9", "api_key": {"file": str(folder / "filed")}},
        },
        "models": {MARKER: {"provider": "fake", "name": "a"}, "other": {"provider": "filed", "name": "b"}},
        "profiles": {"default": {"strategy": "single", "members": [{"model": MARKER}, {"model": "other"}]}},
        "limiter": {"store": {"kind": "redis", "password": {"env": "REDIS_PASSWORD"}}},
        "tls": own,
        "gateway": {"tls": {name: own[name] for name in ("certificate", "key")}, "keys_file": "keys.yaml"},
        "tenants": {"team": {"keys": []}},
    }


@pytest.fixture
def environ(planted: PlantedSecrets, tmp_path: Path) -> dict[str, str]:
    """Return the variables that go with it; its files are there."""
    authority = Authority()
    pair = authority.issue(*HERE)
    CertificateFolder.with_pair(tmp_path / "own", pair, authority.pem)
    planted.add_pem("tls key", pair.key, "PEM file of tls.key and gateway.tls.key")
    (tmp_path / "filed").write_text(planted["other provider key"], "utf-8")
    return {
        "FAKE_API_KEY": planted["provider key"],
        "REDIS_PASSWORD": planted["redis password"],
        "AWS_SECRET_ACCESS_KEY": planted["variable of others"],
        "ENSEMBLE_API_KEY": planted["alice's key"],
    }


def _shown(value: object, depth: int = 0) -> list[str]:
    """Return what Python shows of a value and of everything within it."""
    # A mapping is no object of ours; what holds it says what of it is shown.
    shown = [] if isinstance(value, Mapping) else [repr(value), str(value), pformat(value)]
    if depth < 6:
        names = [name for kind in type(value).__mro__ for name in (*getattr(kind, "__slots__", ()), *getattr(value, "__dict__", {}))]
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set | frozenset) else ()
        shown.append(repr(getattr(value, "__pydantic_private__", None)))
        within = [getattr(value, name, None) for name in dict.fromkeys(names) if isinstance(name, str) and not name.startswith("__")]
        shown += [
            text for one in (*inner, *within) if type(one).__module__.startswith("services") or isinstance(one, Mapping) for text in _shown(one, depth + 1)
        ]
    return shown


async def test_no_object_shows_a_secret(tmp_path: Path, planted: PlantedSecrets, written: Written, environ: dict[str, str]) -> None:
    """The configuration, its sections, the settings made of them and what is opened with them: as Python shows them, and as check-config does."""
    configuration = load_configuration(environ=environ, folder=tmp_path, overrides=_tree(tmp_path))
    settings: list[Any] = [kind.from_configuration(configuration, None) for kind in (GatewaySettings, OrchestratorSettings, LimiterSettings, RefinerSettings)]
    connection = Connection(address=NOWHERE, tls=gateway_tls(configuration), api_key=SecretStr(planted["alice's key"]))
    shown: list[Any] = [configuration, *settings, TelemetrySettings.from_configuration(configuration), Catalogue.from_configuration(configuration)]
    shown += [connection, services_tls(configuration), read_certificates(configuration.tls.files) if configuration.tls else None]
    for value in shown:
        written.add(type(value).__name__, "\n".join(_shown(value)))
    written.add("dump", f"{configuration.model_dump()} {configuration.model_dump_json(by_alias=True)}")
    written.add("check-config", render(configuration))
    assert isinstance(configuration, Configuration)
    assert configuration.limiter.store.password is not None
    assert configuration.limiter.store.password.get_secret_value() == planted["redis password"]
    assert MARKER.encode() in written.texts["Configuration"]
    assert MARKER.encode() in written.texts["check-config"]
    _nothing_of(planted, written)


def _misplaced(secret: str) -> dict[str, Any]:
    """Return what people paste a secret into, by name: what is put above the configuration."""
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:9"}
    return {
        "plain api_key": {"providers": {"fake": {**provider, "api_key": secret}}},
        "api_key in a list": {"providers": {"fake": {**provider, "api_key": [secret]}}},
        "variable's name": {"providers": {"fake": {**provider, "api_key": {"env": secret}}}},
        "file's name": {"providers": {"fake": {**provider, "api_key": {"file": secret}}}},
        "key of a reference": {"providers": {"fake": {**provider, "api_key": {secret: "x", "value": secret}}}},
        "user of a URL": {"providers": {"fake": {**provider, "base_url": f"http://{secret}@127.0.0.1:9"}}},
        "password of a URL": {"providers": {"fake": {**provider, "base_url": f"http://u:{secret}@127.0.0.1:9"}}},
        "query of a URL": {"providers": {"fake": {**provider, "base_url": f"http://127.0.0.1:9?key={secret}"}}},
        "URL": {"providers": {"fake": {**provider, "base_url": secret}}},
        "secret header": {"providers": {"fake": {**provider, "headers": {"authorization": f"Bearer {secret}"}}}},
        "header": {"providers": {"fake": {**provider, "headers": {"x-custom": f"Bearer {secret}"}}}},
        "bare header": {"providers": {"fake": {**provider, "headers": {"x-custom": secret}}}},
        "kind": {"providers": {"fake": {**provider, "kind": secret}}},
        "unknown setting": {"providers": {"fake": {**provider, "token": secret}}},
        "plain password": {"limiter": {"store": {"password": secret}}},
        "password of redis's URL": {"limiter": {"store": {"url": f"redis://:{secret}@127.0.0.1"}}},
        "redis's URL": {"limiter": {"store": {"url": secret}}},
        "duration": {"limiter": {"store": {"timeout": secret}}},
        "telemetry": {"telemetry": {"endpoint": f"https://{secret}@collector"}},
        "switch": {"telemetry": {"capture_content": secret}},
        "listen": {"gateway": {"listen": secret}},
        "tls.key": {"tls": {"key": f"-----BEGIN PRIVATE KEY-----{secret}"}},
        "tls": {"tls": secret},
        "tenant's key": {"tenants": {"team": {"keys": [{"sha256": secret}]}}},
        "tenant's bare key": {"tenants": {"team": {"keys": [secret]}}},
        "tenant's key by its name": {"tenants": {"team": {"keys": [{secret: "x"}]}}},
        "profile of a tenant": {"tenants": {"team": {"profiles": [secret]}}},
        "model": {"profiles": {"default": {"members": [{"model": secret}]}}},
        "strategy": {"profiles": {"default": {"strategy": f"x {secret}"}}},
        "provider of a model": {"models": {MARKER: {"provider": secret}}},
        "section": secret,
        "name of a setting": {"limiter": {secret: 1}},
        "name of a section": {secret: {"listen": 1}},
        "name of a provider": {"providers": {secret: {"kind": "x"}}},
    }


def _merged(base: dict[str, Any], over: object) -> dict[str, Any]:
    if not isinstance(over, dict):
        return {**base, "gateway": over}
    return base | {key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value for key, value in over.items()}


@pytest.mark.parametrize("name", sorted(_misplaced("")))
@pytest.mark.parametrize("kind", ["provider key", "pasted key"])
def test_a_secret_in_the_wrong_place_is_not_repeated(
    tmp_path: Path, planted: PlantedSecrets, written: Written, environ: dict[str, str], name: str, kind: str
) -> None:
    """By the error, its traceback, nor by the configuration where the place takes any text; in the file as well as in variables."""
    over = _misplaced(planted[kind])[name]
    file = tmp_path / "ensemble.yaml"
    file.write_text(yaml.safe_dump(_merged(_tree(tmp_path), over)), "utf-8")
    for variables in ({}, _variables(over)):
        try:
            configuration = load_configuration(file, environ={**environ, **variables}, folder=tmp_path, strategies=known_strategies())
        except ConfigurationError as error:
            written.add("error", f"{error} {error!r} {error.problems} {pformat(error.problems)}")
            written.add("traceback", "".join(traceback.format_exception(error)))
        else:
            written.add("configuration", "\n".join((*_shown(configuration), render(configuration))))
    _nothing_of(planted, written)


def _variables(tree: object, path: str = "ENSEMBLE") -> dict[str, str]:
    """Return variables that say what a tree does, as far as they can."""
    if isinstance(tree, dict):
        return {name: text for key, value in tree.items() for name, text in _variables(value, f"{path}__{key.upper()}").items()}
    return {path: tree if isinstance(tree, str) else json.dumps(tree)} if "__" in path else {}


# --- Commands. ---


async def test_a_process_repeats_no_secret_of_a_wrong_configuration(tmp_path: Path, planted: PlantedSecrets, written: Written, environ: dict[str, str]) -> None:
    """Neither does a service that does not start, nor `ensemble up`, nor check-config, which shows a right one."""
    tree: dict[str, Any] = _tree(tmp_path)
    right = tmp_path / "right.yaml"
    right.write_text(yaml.safe_dump(tree), "utf-8")
    for place in ("plain api_key", "user of a URL", "header", "tenant's bare key", "name of a setting", "unknown setting"):
        for kind in ("provider key", "pasted key"):
            tree = _merged(tree, _misplaced(planted[kind])[place])
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(tree) + f"\n{planted['provider key']}: &{planted['pasted key']} ]", "utf-8")
    unparsed = tmp_path / "unparsed.yaml"
    unparsed.write_text(f"providers: {{fake: {planted['provider key']}\n  key: {planted['pasted key']}", "utf-8")
    variables = {**environ, **_variables(_misplaced(planted["provider key"])["name of a setting"])}
    services = [(f"services.{name}", "--config", str(path)) for name, path in zip(SERVICES, (wrong, unparsed, wrong, wrong), strict=True)]
    commands = [("services.cli", name, "--config", str(path)) for name in ("check-config", "up") for path in (wrong, unparsed)]
    shown = ("services.cli", "check-config", "--config", str(right))

    async def run(module: str, *arguments: str, more: Mapping[str, str]) -> int | None:
        told = await ended(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=tmp_path,
                env={**os.environ, **more},
            )
        )
        written.add(f"{module} {arguments}", told.out)
        written.add(f"{module} {arguments}", told.err)
        return told.code

    codes = await asyncio.gather(*(run(*command, more=variables) for command in (*services, *commands)), run(*shown, more=environ))
    assert codes == [2] * 8 + [0]
    assert MARKER.encode() in written.texts[f"{shown[0]} {shown[1:]}"]
    _nothing_of(planted, written)


async def test_no_command_repeats_a_key(tmp_path: Path, planted: PlantedSecrets, written: Written, environ: dict[str, str]) -> None:
    """Whatever is wrong with it, with where it goes, or with the file that it is in or for; each fails, and says so."""
    key, other = planted["alice's key"], planted["provider key"]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": planted["prompt"]}) + "\n", "utf-8")
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"team:\n  - {{sha256: {planted['pasted key']}}}\n{planted['pasted key']}: [{planted['pasted key']}]\n", "utf-8")
    key_file = tmp_path / "key"
    key_file.write_text(f"{key} {other}\n", "utf-8")
    far = "192.0.2.1:443"
    async with grpc_that_refuses(planted["provider's words"]) as refusing:
        commands: list[tuple[tuple[str, ...], dict[str, str], str | None]] = [
            (("ask", planted["prompt"], "-g", NOWHERE), environ, None),
            (("ask", planted["prompt"], "-g", refusing, "--json", "--profile", planted["pasted key"]), environ, None),
            (("ask", planted["prompt"], "-g", refusing, "--tls"), environ, None),
            (("ask", planted["prompt"], "-g", far), environ, None),
            (("ask", planted["prompt"], "-g", NOWHERE), {"ENSEMBLE_API_KEY": f"{key}\n{other}"}, None),
            (("ask", planted["prompt"], "-g", NOWHERE, "--api-key-file", str(key_file)), {}, None),
            (("ask", planted["prompt"], "-g", NOWHERE, "--api-key-file", key), {}, None),
            (("batch", str(prompts), "-o", str(tmp_path / "answers.jsonl"), "-g", NOWHERE, "--attempts", "1"), environ, None),
            (("batch", str(prompts), "-o", str(tmp_path / "others.jsonl"), "-g", refusing, "--attempts", "1", "--json"), environ, None),
            (("models", "-g", refusing), environ, None),
            (("keys", "hash"), {}, f"{other} {key}"),
            (("keys", "new", "--id", key), {}, None),
            (("keys", "new", "--id", "x", "--tenant", "team", "--file", str(keys)), {}, None),
            (("keys", "new", "--id", "x", "--tenant", key, "--file", str(tmp_path / "new.yaml")), {}, None),
        ]

        async def run(arguments: tuple[str, ...], variables: dict[str, str], stdin: str | None) -> int | None:
            told = await ensemble(*arguments, stdin=None if stdin is None else stdin.encode(), folder=tmp_path, environ=variables)
            where = " ".join(arguments[:2] if arguments[0] == "keys" else arguments[:1])
            written.add(where, told.out)
            written.add(where, told.err)
            return told.code

        codes = [await asyncio.gather(*(run(*command) for command in commands[start : start + 5])) for start in range(0, len(commands), 5)]
    assert all(code for group in codes for code in group), codes
    written.add_files(tmp_path, "*s.jsonl")
    written.texts.pop("prompts.jsonl")
    assert b"has to be somebody else" in written.texts["ask"]
    _nothing_of(planted, written)


@asynccontextmanager
async def grpc_that_refuses(words: str) -> AsyncIterator[str]:
    """Run a server that knows no caller and answers with the metadata that it got, and with words, in what is no status of ours; yield its address."""

    async def refuse(_: bytes, context: Any) -> bytes:
        sent = ",".join(f"{key}={value}" for key, value in context.invocation_metadata())
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the caller has to be somebody else", (("told", sent), ("words", words)))
        return b""

    handler: Any = grpc.unary_unary_rpc_method_handler(refuse)
    stream: Any = grpc.unary_stream_rpc_method_handler(refuse)
    methods = {"Generate": handler, "ListModels": handler, "StreamGenerate": stream}
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ensemble.v1.GatewayService", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
