"""The page about the limiter says what is so: its snippets run, its configuration loads, its tables leave nothing out."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from ensemble.v1 import limiter_service_pb2 as pb
from ensemble.v1 import limiter_service_pb2_grpc, permit_pb2
from services.chassis.configuration import Configuration, load_configuration
from services.limiter.app import application

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "limiter.md").read_text(encoding="utf-8")
METHODS = pb.DESCRIPTOR.services_by_name["LimiterService"].methods_by_name
GRPCURL = re.findall(r"^grpcurl .*-d '(.*)' \S+ ensemble\.v1\.LimiterService/(\w+)$", PAGE, re.MULTILINE)


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def _loaded(yaml: str, folder: Path) -> Configuration:
    (folder / "ensemble.yaml").write_text(yaml, encoding="utf-8")
    return load_configuration(environ={"REDIS_PASSWORD": "x"}, folder=folder)


def _first_cells(section: str) -> set[str]:
    """Return the first cell of each row of the tables in a section that is a name in capitals."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| ([A-Z_]+) \|", text, re.MULTILINE))


def _names(kind: Any, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name, value in kind.items() if value}


async def test_the_python_snippet_runs_as_it_stands(tmp_path: Path) -> None:
    """With the page's configuration and nothing but the generated code: the call is made, settled, and has cost what was reported."""
    (code,) = _blocks("python")
    assert "services" not in code
    configuration = await asyncio.to_thread(_loaded, _blocks("yaml")[0], tmp_path)
    async with application(configuration, listen="127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as channel:
        environ = {**os.environ, "LIMITER": server.address, "PYTHONPATH": str(ROOT / "protos")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", code), cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert (process.returncode, out.decode(), err.decode()) == (0, "SETTLEMENT_SETTLED\nIt is Paris.\n", "")
        stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(channel)
        state = await stub.GetState(pb.GetStateRequest(models=["careful"], tenants=["team-a"]), timeout=10)
    levels = {level.name: level for level in state.models[0].limits}
    assert state.models[0].in_flight == 0
    assert levels["requests_per_minute"].remaining < 10
    assert state.models[0].breaker.window_calls == 1
    assert [(budget.spent_micro_usd, budget.reserved_micro_usd) for budget in state.tenants[0].budgets] == [(117, 0), (117, 0)]


def test_the_configuration_loads(tmp_path: Path) -> None:
    """Both pieces, and what is commented out in them."""
    models, store = _blocks("yaml")
    assert {"careful", "quick"} <= set(_loaded(models, tmp_path).models)
    assert _loaded(store, tmp_path).limiter.store.kind == "redis"
    told = _loaded(re.sub(r"^( *)# (\w+: )", r"\1\2", store, flags=re.MULTILINE), tmp_path).limiter.store
    assert (told.username, told.password is not None) == ("limiter", True)


def test_the_defaults_are_those_of_the_configuration() -> None:
    """Of the limiter's own keys, as `check-config` prints them."""
    section = load_configuration(environ={}, folder=ROOT / "docs").limiter.model_dump(by_alias=True)
    told = dict(re.findall(r"^\| `limiter\.(\w+)` \| (\S+) \|", PAGE, re.MULTILINE))
    assert told == {name: section[name] for name in ("longest_lease", "late_report_grace", "idempotency_window")}


@pytest.mark.parametrize(("text", "method"), GRPCURL)
def test_what_is_written_by_hand_is_a_request(text: str, method: str) -> None:
    """Every field is known, and so is the method."""
    request = getattr(pb, METHODS[method].input_type.name)()
    json_format.Parse(text, request)


def test_there_are_requests_by_hand() -> None:
    """The page shows how to ask without any code."""
    assert {method for _, method in GRPCURL} == {"AcquirePermits", "ReportOutcomes", "WatchState"}


def test_every_reason_and_result_is_explained() -> None:
    """One row for each that a limiter can give or take."""
    assert _first_cells("Denials") == _names(permit_pb2.DenialReason, "DENIAL_REASON_")
    assert _first_cells("What a holder must do") == _names(permit_pb2.CallResult, "CALL_RESULT_")
    said = set(re.findall(r"\*\*([A-Z]+)\*\*", PAGE))
    assert said == _names(permit_pb2.Settlement, "SETTLEMENT_")


def test_every_key_of_the_breaker_is_named_with_its_default() -> None:
    """As the configuration has it."""
    breaker = load_configuration(environ={}, folder=ROOT / "docs", overrides={"models": {"m": {"provider": "local", "name": "x"}}}).models["m"].breaker
    told = dict(re.findall(r"`(\w+)` \[([^\]]+)\]", PAGE))
    assert told == {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in breaker.model_dump(by_alias=True).items()}


def test_every_limit_is_named() -> None:
    """The table of keys leaves none out."""
    model = load_configuration(environ={}, folder=ROOT / "docs").models["smollm2"]
    section = PAGE.split("\n## Start it\n")[1].split("\n## ")[0]
    assert {name for name in model.limits.model_dump() if name not in section} == set()
