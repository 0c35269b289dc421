"""The four services as processes, with secrets in everything that holds one, and callers who bring more."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import yaml

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.chassis.api_keys import sha256_of
from tests.support.certificates import HERE, Authority, CertificateFolder
from tests.support.fake_provider import Answer, FakeProvider, Hang, Raw, Reply, Reset, Status, Stream, chunk, event, http
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.planted_secrets import MARKER, PlantedSecrets, Written
from tests.support.redis_server import RedisServer
from tests.support.service_processes import SERVICES, configured_file, started
from tests.support.stack import MEMBERS, WRITER


async def until(reached: Callable[[], Awaitable[bool]], seconds: float = 40.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not await reached():
            await asyncio.sleep(0.05)


def bad_days(words: str, answer: str) -> dict[str, Reply]:
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


class SecretiveServices:
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
        for model, reply in bad_days(self.planted["provider's words"], self.planted["answer"]).items():
            provider.script(model, reply)
        for model in (*MEMBERS, WRITER):
            provider.script(model, Answer(text=self.planted["answer"]))
        self.path, self.addresses = await configured_file(self.folder, provider, {"timeout": "20s"})
        tree = yaml.safe_load(self.path.read_text("utf-8"))
        (self.folder / "filed").write_text(self.planted["other provider key"] + "\n", "utf-8")
        url = provider.base_url
        tree["providers"] = {
            "fake": {"kind": "openai", "base_url": url, "api_key": {"env": "FAKE_API_KEY"}},
            "filed": {"kind": "openai", "base_url": url, "api_key": {"file": str(self.folder / "filed")}},
        }
        tree["models"] |= {name: {"provider": "fake", "name": name, "timeout": "1s"} for name in bad_days("", "")}
        tree["models"][WRITER]["provider"] = "filed"
        tree["tls"] = self.own.section
        tree["telemetry"] = {"endpoint": receiver.endpoint}
        tree["limiter"]["store"] = {"kind": "redis", "url": server.url, "password": {"env": "REDIS_PASSWORD"}, "timeout": "5s"}
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

        await until(succeeds, 60)

    def log(self, name: str) -> str:
        """Return what a service has written so far."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    async def logs(self, name: str, words: str) -> None:
        """Wait until a service has written some words."""

        async def written() -> bool:
            return words in self.log(name)

        await until(written)

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
