"""`ensemble limits --watch`: follows the limiter's state for as long as somebody looks.

ask --first message--> whole --change--> whole with the change in it
 ^                       |
 `---- a while later ----'  the stream ended because the limiter stopped or cannot be reached
 `------- at once -------'  the configuration changed: models may be gone, which a change does not say
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from ensemble.v1 import limiter_service_pb2, model_state_pb2
from services.cli.connection import Connection
from services.cli.limits_client import LimiterClient, Selection, limiter_at
from services.cli.limits_view import view_of
from services.cli.rpc_errors import CallFailed, RpcFailure

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
_TEMPORARY = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"}
"""How a stream ends that is worth another attempt, once there was a state; CANCELLED is what a limiter says that stops at once."""

Change = limiter_service_pb2.WatchStateResponse
Say = Callable[[str], None]


async def watch_limits(connection: Connection, selection: Selection, *, timeout: float, as_json: bool, console: Console | None = None) -> None:
    """Show the state and each change until interrupted. Raises `CommandError` where there is nothing to watch."""
    followed = FollowedState()
    with view_of(followed.state, connection.address, as_json=as_json, console=console or Console(highlight=False)) as view:
        async with aclosing(follow(connection, selection, timeout=timeout, say=view.say)) as changes:
            async for change, whole in changes:
                followed.take(change, whole=whole)
                view.show(change)


async def follow(
    connection: Connection,
    selection: Selection,
    *,
    timeout: float,
    say: Say,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
) -> AsyncGenerator[tuple[Change, bool], None]:
    """Yield each message and whether it is a whole state; a stream that ends is begun again, ever less often, up to every `LONGEST_WAIT_SECONDS`.

    Raises `CommandError` where the first state does not come, or the limiter refuses.
    """
    failures: int | None = None
    """Attempts since the last message; None before the first one."""
    while True:
        try:
            async with limiter_at(connection, watching=True) as client, aclosing(_one_stream(client, selection, connection, timeout)) as stream:
                async for change, whole in stream:
                    failures = 0
                    yield change, whole
            reason = f"{connection.address} ended the stream"
        except CallFailed as error:
            if failures is None or error.failure.code not in _TEMPORARY:
                raise
            reason = error.lines()[0]
        except _ConfigurationChanged:
            continue
        failures = failures or 0
        # Those who lost the same limiter shall not come back all at once.
        seconds = min(FIRST_WAIT_SECONDS * 2.0 ** min(failures, 16), LONGEST_WAIT_SECONDS) * uniform(0.8, 1.0)
        failures += 1
        say(f"{reason}; trying again in {seconds:.1f} s")
        await wait(seconds)


async def _one_stream(client: LimiterClient, selection: Selection, connection: Connection, timeout: float) -> AsyncGenerator[tuple[Change, bool], None]:
    async with aclosing(client.watch(selection)) as stream:
        try:
            async with asyncio.timeout(timeout):
                first = await anext(stream, None)
        except TimeoutError:
            # The call itself has no deadline, for it shall go on; its first message has.
            raise CallFailed(
                RpcFailure(code="DEADLINE_EXCEEDED", message=""), connection=connection, trace_id=client.trace.trace_id, service="limiter"
            ) from None
        if first is None:
            return
        yield first, True
        async for change in stream:
            if change.config_version != first.config_version:
                raise _ConfigurationChanged
            yield change, False


class _ConfigurationChanged(Exception):
    """Other limits are in force."""


class FollowedState:
    """The whole state, with every change so far in it; what only runs down is reckoned on from when it was told."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest = Change()
        self._latest_at = 0.0
        # Replaced, never changed: the live view reads from a thread of its own.
        self._models: dict[str, tuple[model_state_pb2.ModelState, float]] = {}
        self._tenants: dict[str, tuple[model_state_pb2.TenantState, float]] = {}

    def take(self, change: Change, *, whole: bool) -> None:
        """Take a message in."""
        now = self._clock()
        self._models = {**({} if whole else self._models), **{model.model: (model, now) for model in change.models}}
        self._tenants = {**({} if whole else self._tenants), **{tenant.tenant: (tenant, now) for tenant in change.tenants}}
        self._latest, self._latest_at = change, now

    def state(self) -> limiter_service_pb2.GetStateResponse:
        """Return the whole state as of now."""
        now = self._clock()
        latest = self._latest
        state = limiter_service_pb2.GetStateResponse(config_version=latest.config_version, degraded=latest.degraded)
        if latest.HasField("learning_for"):
            state.learning_for.CopyFrom(latest.learning_for)
            _run_down(state.learning_for, now - self._latest_at)
        for model, told in self._models.values():
            copy = state.models.add()
            copy.CopyFrom(model)
            for duration in _running(copy):
                _run_down(duration, now - told)
        for tenant, told in self._tenants.values():
            level = state.tenants.add()
            level.CopyFrom(tenant)
            for budget in level.budgets:
                _run_down(budget.resets_in, now - told)
        return state


def _running(model: model_state_pb2.ModelState) -> Iterable[Duration]:
    if model.breaker.HasField("open_for"):
        yield model.breaker.open_for
    if model.HasField("provider_backoff"):
        yield model.provider_backoff
    if model.HasField("override_for"):
        yield model.override_for


def _run_down(duration: Duration, elapsed: float) -> None:
    duration.FromTimedelta(max(timedelta(), duration.ToTimedelta() - timedelta(seconds=elapsed)))
