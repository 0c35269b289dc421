"""What the configuration and the commands say of secrets, those in the wrong place too: nothing."""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from pprint import pformat
from typing import Any

import grpc
import pytest
import yaml
from pydantic import SecretStr

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
from tests.support.misplaced_secrets import as_variables, merged, misplaced, right_tree
from tests.support.planted_secrets import MARKER, TABLE, PlantedSecrets, Written, nothing_of
from tests.support.service_processes import SERVICES


@pytest.fixture
def planted() -> PlantedSecrets:
    """Return fresh secrets."""
    return PlantedSecrets(TABLE)


@pytest.fixture
def written() -> Written:
    """Return what is about to be written."""
    return Written()


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
    configuration = load_configuration(environ=environ, folder=tmp_path, overrides=right_tree(tmp_path))
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
    nothing_of(planted, written)


@pytest.mark.parametrize("name", sorted(misplaced("")))
@pytest.mark.parametrize("kind", ["provider key", "pasted key"])
def test_a_secret_in_the_wrong_place_is_not_repeated(
    tmp_path: Path, planted: PlantedSecrets, written: Written, environ: dict[str, str], name: str, kind: str
) -> None:
    """By the error, its traceback, nor by the configuration where the place takes any text; in the file as well as in variables."""
    over = misplaced(planted[kind])[name]
    file = tmp_path / "ensemble.yaml"
    file.write_text(yaml.safe_dump(merged(right_tree(tmp_path), over)), "utf-8")
    for variables in ({}, as_variables(over)):
        try:
            configuration = load_configuration(file, environ={**environ, **variables}, folder=tmp_path, strategies=known_strategies())
        except ConfigurationError as error:
            written.add("error", f"{error} {error!r} {error.problems} {pformat(error.problems)}")
            written.add("traceback", "".join(traceback.format_exception(error)))
        else:
            written.add("configuration", "\n".join((*_shown(configuration), render(configuration))))
    nothing_of(planted, written)


async def test_a_process_repeats_no_secret_of_a_wrong_configuration(tmp_path: Path, planted: PlantedSecrets, written: Written, environ: dict[str, str]) -> None:
    """Neither does a service that does not start, nor `ensemble up`, nor check-config, which shows a right one."""
    tree: dict[str, Any] = right_tree(tmp_path)
    right = tmp_path / "right.yaml"
    right.write_text(yaml.safe_dump(tree), "utf-8")
    (tmp_path / "keys.yaml").write_text("team: []\n", "utf-8")
    for place in ("plain api_key", "user of a URL", "header", "tenant's bare key", "name of a setting", "unknown setting"):
        for kind in ("provider key", "pasted key"):
            tree = merged(tree, misplaced(planted[kind])[place])
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(tree) + f"\n{planted['provider key']}: &{planted['pasted key']} ]", "utf-8")
    unparsed = tmp_path / "unparsed.yaml"
    unparsed.write_text(f"providers: {{fake: {planted['provider key']}\n  key: {planted['pasted key']}", "utf-8")
    variables = {**environ, **as_variables(misplaced(planted["provider key"])["name of a setting"])}
    services = [(f"services.{name}", "--config", str(path)) for name, path in zip(SERVICES, (wrong, unparsed, wrong, wrong), strict=True)]
    commands = [("services.cli", name, "--config", str(path)) for name in ("check-config", "up") for path in (wrong, unparsed)]
    at_once = asyncio.Semaphore(2)
    shown = ("services.cli", "check-config", "--config", str(right))

    async def run(module: str, *arguments: str, more: Mapping[str, str]) -> int | None:
        async with at_once:
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
    nothing_of(planted, written)


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

        codes = [await asyncio.gather(*(run(*command) for command in commands[start : start + 3])) for start in range(0, len(commands), 3)]
    assert all(code for group in codes for code in group), codes
    written.add_files(tmp_path, "*s.jsonl")
    written.texts.pop("prompts.jsonl")
    assert b"has to be somebody else" in written.texts["ask"]
    nothing_of(planted, written)


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
