"""`ensemble limits` as a user runs it: processes, exit codes, what goes to which stream."""

import asyncio
import json
import signal
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from ensemble.v1 import limiter_service_pb2 as pb
from ensemble.v1 import model_state_pb2 as states
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.limits import override_seconds
from services.limiter.app import application
from tests.support.command_line import NOWHERE, PATIENCE_SECONDS, Terminal, begin, ended, ensemble
from tests.support.fake_gateway import details, fake_gateway
from tests.support.fake_limiter import FakeLimiter, fake_limiter
from tests.support.fake_provider import FakeProvider
from tests.support.stack import configured

STATE = pb.GetStateResponse(
    models=[states.ModelState(model="careful", in_flight=2, breaker=states.BreakerSnapshot(state=states.BREAKER_STATE_CLOSED))],
    tenants=[states.TenantState(tenant="team-a", budgets=[states.BudgetLevel(period="day", limit_micro_usd=2_000_000)])],
    config_version=7,
)


def _change(in_flight: int) -> pb.WatchStateResponse:
    return pb.WatchStateResponse(models=[states.ModelState(model="careful", in_flight=in_flight)], config_version=7)


async def _line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await stream.readline()).decode()


async def test_the_limiter_itself_is_asked() -> None:
    """All of it unless models or tenants are named; as tables and as one object."""
    async with fake_limiter() as limiter:
        limiter.state = STATE
        shown = await ensemble("limits", "--limiter", limiter.address)
        assert (shown.code, shown.err) == (0, "")
        assert f"limiter {limiter.address}; configuration version 7" in shown.text
        assert all(word in shown.text for word in ("careful", "CLOSED", "team-a", "day $0.00 of $2.00 spent"))
        arguments = ("--model", "careful", "-m", "quick", "--tenant", "team-a", "-t", "team-b", "--json")
        scripted = await ensemble("limits", *arguments, environ={"ENSEMBLE_LIMITER": limiter.address})
        assert scripted.code == 0
        told = json.loads(scripted.text)
        assert sorted(told) == ["config_version", "degraded", "models", "tenants"]
        assert told["models"][0]["breaker"]["state"] == "BREAKER_STATE_CLOSED"
        assert told["tenants"][0]["budgets"][0]["limit_micro_usd"] == "2000000"
        assert limiter.requests == [pb.GetStateRequest(), pb.GetStateRequest(models=["careful", "quick"], tenants=["team-a", "team-b"])]


async def test_the_limiter_is_found_by_the_configuration(tmp_path: Path) -> None:
    """Where those that ask it for availability find it."""
    async with fake_limiter() as limiter:
        await asyncio.to_thread((tmp_path / "ensemble.yaml").write_text, f"gateway: {{limiter: '{limiter.address}'}}")
        assert (await ensemble("limits", folder=tmp_path)).code == 0
        assert len(limiter.requests) == 1


@pytest.mark.parametrize("arguments", [("limits",), ("limits", "--watch"), ("limits", "override", "carefull", "none")])
async def test_a_refusal_is_passed_on(arguments: tuple[str, ...]) -> None:
    """With the names that there are, as words and as an object; repeating it changes nothing."""
    resource = error_details_pb2.ResourceInfo(resource_name="carefull")
    async with fake_limiter() as limiter:
        limiter.refusal = (grpc.StatusCode.NOT_FOUND, "there is no model of that name; known are careful", details(resource, reason="NOT_FOUND"))
        said = await ensemble(*arguments, "-l", limiter.address)
        assert (said.code, said.text) == (2, "")
        assert "known are careful\n  not known: carefull\n" in said.err
        scripted = await ensemble(*arguments, "-l", limiter.address, "--json")
        assert (scripted.code, json.loads(scripted.text)["error"]["reason"]) == (2, "NOT_FOUND")


async def test_a_limiter_that_does_not_answer() -> None:
    """3 where nobody listens, 4 where nothing is said in time; another service is told apart."""
    for arguments in (("limits",), ("limits", "--watch"), ("limits", "override", "m", "none")):
        assert (await ensemble(*arguments, "-l", NOWHERE)).code == 3
    async with fake_limiter() as limiter, fake_gateway() as gateway:
        limiter.hanging = True
        said = await ensemble("limits", "-l", limiter.address, "--timeout", "0.1")
        assert (said.code, said.err.split("\n")[0]) == (4, f"{limiter.address} did not answer in time; --timeout gives more")
        said = await ensemble("limits", "-l", gateway.address)
        assert (said.code, said.err.split("\n")[0]) == (1, f"what answers at {gateway.address} is not a limiter of this version")


async def test_options_stand_behind_the_command_they_belong_to() -> None:
    """They would be ignored otherwise, the address among them; one in the environment holds for all."""
    async with fake_limiter() as limiter:
        said = await ensemble("limits", "--limiter", limiter.address, "override", "m", "none")
        assert (said.code, "--limiter" in said.err, limiter.requests) == (2, True, [])
        assert (await ensemble("limits", "override", "m", "none", environ={"ENSEMBLE_LIMITER": limiter.address})).code == 0


async def test_an_override_is_set_and_lifted() -> None:
    """The model's state comes back, as a table and as an object."""
    async with fake_limiter() as limiter:
        shown = await ensemble("limits", "override", "careful", "forced-open", "--for", "10m", "-l", limiter.address)
        assert (shown.code, "override FORCED_OPEN for 10m 0s more" in shown.text, shown.err) == (0, True, "")
        scripted = await ensemble("limits", "override", "careful", "metrics-only", "--for", "1.5s", "-l", limiter.address, "--json")
        told = json.loads(scripted.text)["model"]
        assert (told["model"], told["override"], told["override_for"]) == ("careful", "OVERRIDE_MODE_METRICS_ONLY", "1.500s")
        assert (await ensemble("limits", "override", "careful", "disabled", "--for", "24h", "-l", limiter.address)).code == 0
        assert "override" not in (await ensemble("limits", "override", "careful", "none", "-l", limiter.address)).text
    assert limiter.requests == [
        pb.SetOverrideRequest(model="careful", mode=states.OVERRIDE_MODE_FORCED_OPEN, ttl=Duration(seconds=600)),
        pb.SetOverrideRequest(model="careful", mode=states.OVERRIDE_MODE_METRICS_ONLY, ttl=Duration(seconds=1, nanos=500_000_000)),
        pb.SetOverrideRequest(model="careful", mode=states.OVERRIDE_MODE_DISABLED, ttl=Duration(seconds=86_400)),
        pb.SetOverrideRequest(model="careful"),
    ]


@pytest.mark.parametrize(
    ("mode", "text", "word"),
    [
        ("forced-open", None, "is required"),
        ("disabled", "10", "with its unit"),
        ("disabled", "999ms", "between 1s and 24h"),
        ("disabled", "24.001h", "between 1s and 24h"),
        ("none", "10m", "no meaning"),
    ],
)
def test_a_period_that_cannot_be_meant_is_refused(mode: str, text: str | None, word: str) -> None:
    """Before the limiter is asked, and with the option's name."""
    with pytest.raises(CommandError, match=f"^--for .*{word}") as caught:
        override_seconds(mode, text)
    assert (caught.value.code, list(caught.value.violations)) == (ExitCode.WRONG, ["--for"])


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1.0), ("24h", 86_400.0), ("1.5m", 90.0)])
def test_a_period_may_be_a_second_to_a_day(text: str, seconds: float) -> None:
    """Both included."""
    assert override_seconds("forced-open", text) == seconds


async def test_a_watch_is_a_line_for_each_change() -> None:
    """Where standard output is no terminal; each is there at once; a limiter that stops is a word on standard error; Ctrl-C ends it with 130."""
    limiter = FakeLimiter()
    stop = asyncio.Event()
    limiter.streams = [[_change(1), stop, grpc.StatusCode.UNAVAILABLE], [_change(2)]]
    async with fake_limiter(limiter):
        process = await begin("limits", "--watch", "-l", limiter.address)
        assert "configuration version 7" in await _line(process.stdout)
        assert "Z model careful: 1 in flight" in await _line(process.stdout)
        stop.set()
        assert "as told; trying again in" in await _line(process.stderr)
        assert "Z model careful: 2 in flight" in await _line(process.stdout)
        process.send_signal(signal.SIGINT)
        done = await ended(process)
        assert (done.code, done.text, done.err) == (130, "", "interrupted\n")
        async with asyncio.timeout(10):
            await limiter.cancelled.wait()


async def test_a_watch_for_scripts_is_an_object_a_line() -> None:
    """Each holds the whole state and comes at once; how it ended is an object too."""
    limiter = FakeLimiter()
    more = asyncio.Event()
    first = pb.WatchStateResponse(models=[states.ModelState(model="a"), states.ModelState(model="careful")], config_version=7)
    limiter.streams = [[first, more, _change(5)]]
    async with fake_limiter(limiter):
        process = await begin("limits", "--watch", "--json", "-l", limiter.address)
        assert [model["in_flight"] for model in json.loads(await _line(process.stdout))["models"]] == [0, 0]
        more.set()
        assert [model["in_flight"] for model in json.loads(await _line(process.stdout))["models"]] == [0, 5]
        process.send_signal(signal.SIGINT)
        done = await ended(process)
        assert (done.code, json.loads(done.text)["error"]["code"], done.err) == (130, "INTERRUPTED", "")


async def test_a_watch_on_a_terminal_is_drawn_in_place() -> None:
    """The last state stays when it is interrupted, and the cursor comes back."""
    limiter = FakeLimiter()
    limiter.streams = [[_change(41)]]
    terminal = Terminal()
    async with fake_limiter(limiter):
        process = await begin("limits", "--watch", "-l", limiter.address, stdout=terminal.theirs, environ={"TERM": "xterm"})
        terminal.begun()
        await terminal.shows("41")
        process.send_signal(signal.SIGINT)
        shown = await terminal.shown()
        assert (await ended(process)).code == 130
    assert "\x1b[?25l" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


async def test_a_real_limiter_is_shown_overridden_and_watched() -> None:
    """Its limits and budgets, an override that a watch tells of, names that it does not know, and its stop."""
    provider = FakeProvider()
    provider.base_url = "http://127.0.0.1:1/v1"
    limits = {"requests_per_minute": 600, "concurrency": 5}
    configuration = configured(provider, models={"alpha": {"limits": limits}}, tenants={"team-a": {"budget": {"per_day": 1.5}}})
    async with application(configuration, listen="127.0.0.1:0") as server:
        address = server.address
        shown = await ensemble("limits", "-m", "alpha", "-l", address)
        assert (shown.code, shown.err) == (0, "")
        assert all(word in shown.text for word in ("requests_per_minute 100/600", "concurrency 5/5", "CLOSED", "team-a", "day $0.00 of $1.50 spent"))
        watch = await begin("limits", "--watch", "-m", "alpha", "--json", "-l", address)
        assert json.loads(await _line(watch.stdout))["models"][0]["override"] == "OVERRIDE_MODE_UNSPECIFIED"
        overridden = await ensemble("limits", "override", "alpha", "forced-open", "--for", "1h", "-l", address)
        assert (overridden.code, "override FORCED_OPEN for" in overridden.text) == (0, True)
        assert json.loads(await _line(watch.stdout))["models"][0]["override"] == "OVERRIDE_MODE_FORCED_OPEN"
        unknown = await ensemble("limits", "override", "alhpa", "none", "-l", address)
        assert (unknown.code, "alpha" in unknown.err) == (2, True)
        assert (await ensemble("limits", "-t", "team-b", "-l", address)).code == 2
        lifted = await ensemble("limits", "override", "alpha", "none", "-l", address)
        assert (lifted.code, "override" in lifted.text) == (0, False)
    assert "trying again in" in await _line(watch.stderr)
    watch.send_signal(signal.SIGINT)
    assert (await ended(watch)).code == 130
