"""A watched limiter: changes merged, streams that end begun again."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ensemble.v1 import limiter_service_pb2, model_state_pb2
from services.cli.connection import Connection
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.limits_client import Selection
from services.cli.limits_watch import Change, FollowedState, follow
from tests.support.command_line import NOWHERE
from tests.support.fake_gateway import details
from tests.support.fake_limiter import FakeLimiter, fake_limiter

Code = grpc.StatusCode
ALL = Selection()


class Waits:
    """Waits that only note how long they were."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.said: list[str] = []

    async def wait(self, seconds: float) -> None:
        """Note it."""
        self.seconds.append(seconds)

    def following(self, address: str, *, timeout: float = 20.0, selection: Selection = ALL) -> AsyncGenerator[tuple[Change, bool], None]:
        """Follow a limiter without jitter."""
        return follow(Connection(address=address), selection, timeout=timeout, say=self.said.append, wait=self.wait, uniform=lambda _, high: high)


def _change(*models: str, version: int = 1) -> Change:
    return Change(models=[model_state_pb2.ModelState(model=model) for model in models], config_version=version)


async def _told(following: AsyncGenerator[tuple[Change, bool], None], count: int) -> list[tuple[str, bool]]:
    """Return the models' names in the first messages, and whether each message is whole."""
    told: list[tuple[str, bool]] = []
    async with asyncio.timeout(20), aclosing(following):
        while len(told) < count:
            change, whole = await anext(following)
            told.append((" ".join(model.model for model in change.models), whole))
    return told


async def test_the_first_message_is_whole_and_the_others_are_changes() -> None:
    """What was selected is asked for; leaving ends the stream."""
    async with fake_limiter() as limiter:
        limiter.streams = [[_change("a", "b"), _change("b")]]
        selection = Selection(models=("a", "b"), tenants=("t",))
        assert await _told(Waits().following(limiter.address, selection=selection), 2) == [("a b", True), ("b", False)]
        assert limiter.requests == [limiter_service_pb2.WatchStateRequest(models=["a", "b"], tenants=["t"])]
        async with asyncio.timeout(10):
            await limiter.cancelled.wait()


@pytest.mark.parametrize("end", [Code.UNAVAILABLE, Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.OK])
async def test_a_stream_that_ends_is_begun_again(end: grpc.StatusCode) -> None:
    """With a word and after a while; what comes first is whole again."""
    waits = Waits()
    async with fake_limiter() as limiter:
        limiter.streams = [[_change("a"), end], [_change("a")]]
        assert await _told(waits.following(limiter.address), 2) == [("a", True), ("a", True)]
    assert waits.seconds == [0.5]
    assert [word.endswith("; trying again in 0.5 s") and limiter.address in word for word in waits.said] == [True]


async def test_a_stream_that_ends_with_nothing_said_is_begun_again() -> None:
    """As one that ended later."""
    waits = Waits()
    async with fake_limiter() as limiter:
        limiter.streams = [[Code.OK], [_change("a")]]
        assert await _told(waits.following(limiter.address), 1) == [("a", True)]
    assert waits.said == [f"{limiter.address} ended the stream; trying again in 0.5 s"]


async def test_a_limiter_that_is_gone_is_asked_ever_less_often() -> None:
    """The waits double up to ten seconds, and begin anew once there was a message."""
    waits = Waits()
    async with fake_limiter() as limiter:
        limiter.streams = [[_change("a"), Code.UNAVAILABLE], *[[Code.UNAVAILABLE]] * 6, [_change("b"), Code.UNAVAILABLE], [_change("c")]]
        assert [name for name, _ in await _told(waits.following(limiter.address), 3)] == ["a", "b", "c"]
    assert waits.seconds == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 0.5]


async def test_a_limiter_that_is_started_again_is_found() -> None:
    """Where it was, at the first attempt after that: the connection that was lost does not decide when the next one is made."""
    limiter = FakeLimiter()
    limiter.streams = [[_change("a")], [_change("b")]]
    refused, back = asyncio.Event(), asyncio.Event()
    attempts = 0

    async def wait(_: float) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            refused.set()
            await back.wait()

    async with asyncio.timeout(20):
        async with fake_limiter(limiter):
            following = follow(Connection(address=limiter.address), ALL, timeout=20.0, say=lambda _: None, wait=wait)
            assert (await anext(following))[1]
        async with aclosing(following):
            again = asyncio.ensure_future(anext(following))
            await refused.wait()
            async with fake_limiter(limiter):
                back.set()
                change, whole = await again
    assert (change.models[0].model, whole, attempts) == ("b", True, 3)


async def test_other_limits_are_read_as_a_whole() -> None:
    """At once and without a word: a model that is gone is in no change."""
    waits = Waits()
    async with fake_limiter() as limiter:
        limiter.streams = [[_change("a", "b"), _change("a", version=2)], [_change("a", version=2), _change("a", version=2)]]
        assert await _told(waits.following(limiter.address), 3) == [("a b", True), ("a", True), ("a", False)]
    assert waits.said == []


async def test_what_never_began_fails() -> None:
    """Where nobody listens or nothing is said in time there is nothing to watch."""
    with pytest.raises(CommandError) as caught:
        await _told(Waits().following(NOWHERE), 1)
    assert caught.value.code is ExitCode.UNAVAILABLE
    async with fake_limiter() as limiter:
        limiter.hanging = True
        with pytest.raises(CommandError) as caught:
            await _told(Waits().following(limiter.address, timeout=0.05), 1)
        assert caught.value.code is ExitCode.DEADLINE
        async with asyncio.timeout(10):
            await limiter.cancelled.wait()


async def test_a_refusal_ends_the_watch() -> None:
    """Also after a reconnection: a model may be gone by then."""
    waits = Waits()
    async with fake_limiter() as limiter:
        limiter.streams = [[_change("a"), Code.UNAVAILABLE]]
        following = waits.following(limiter.address)
        await anext(following)
        limiter.refusal = (Code.NOT_FOUND, "there is no model of that name", details(reason="NOT_FOUND"))
        with pytest.raises(CommandError, match="no model") as caught:
            await anext(following)
        assert caught.value.code is ExitCode.WRONG


def test_changes_are_merged_and_times_run_down() -> None:
    """What was not told again stands as it did, but for what only runs down; a whole state forgets what is not in it."""
    now = 100.0
    followed = FollowedState(lambda: now)
    running = {"provider_backoff": Duration(seconds=4), "override": model_state_pb2.OVERRIDE_MODE_DISABLED, "override_for": Duration(seconds=60)}
    opened = model_state_pb2.BreakerSnapshot(state=model_state_pb2.BREAKER_STATE_OPEN, open_for=Duration(seconds=9))
    first = model_state_pb2.ModelState(model="a", breaker=opened, **running)  # type: ignore[arg-type] # fields by name
    budget = model_state_pb2.BudgetLevel(period="day", resets_in=Duration(seconds=30))
    tenant = model_state_pb2.TenantState(tenant="t", budgets=[budget])
    whole = Change(models=[first, model_state_pb2.ModelState(model="b")], tenants=[tenant], config_version=1, learning_for=Duration(seconds=8))
    followed.take(whole, whole=True)
    now += 5.5
    followed.take(Change(models=[model_state_pb2.ModelState(model="b", in_flight=2)], degraded=True, config_version=1), whole=False)
    state = followed.state()
    assert [(model.model, model.in_flight) for model in state.models] == [("a", 0), ("b", 2)]
    a = state.models[0]
    assert (a.breaker.open_for.ToMilliseconds(), a.provider_backoff.ToMilliseconds(), a.override_for.ToMilliseconds()) == (3_500, 0, 54_500)
    assert state.tenants[0].budgets[0].resets_in.ToMilliseconds() == 24_500
    assert not state.models[1].HasField("override_for")
    assert (state.config_version, state.degraded, state.HasField("learning_for")) == (1, True, False)
    assert whole.models[0].breaker.open_for.seconds == 9
    followed.take(Change(models=[model_state_pb2.ModelState(model="b")], learning_for=Duration(seconds=8), config_version=2), whole=True)
    now += 1
    state = followed.state()
    assert ([model.model for model in state.models], list(state.tenants), state.learning_for.seconds, state.config_version) == (["b"], [], 7, 2)
