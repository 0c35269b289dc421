"""A channel whose credentials are renewed: gRPC's own are fixed when a channel is made, so another one is made when the files have changed.

    certificates replaced --> another channel connects --ready, or too late--> new calls go over it --old calls ended--> the old one is closed

Calls in flight, streams too, finish where they began. Whoever holds a stub or watches the connectivity holds this object, and need know nothing of it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import grpc

from services.chassis.calls_in_flight import CallsInFlight
from services.chassis.certificates import Certificates
from services.chassis.rotation import RotatingCertificates

_log = logging.getLogger(__name__)

LONGEST_CONNECTING_SECONDS = 10.0
"""How long the old channel, where it serves, takes new calls while the new one connects. Then the new one counts, though it may not be ready: credentials that
were taken away shall not be used for ever."""

Making = Callable[[Certificates], grpc.aio.Channel]


class _Generation:
    """A channel with the certificates it was made for, and its calls in flight."""

    def __init__(self, certificates: Certificates, channel: grpc.aio.Channel) -> None:
        self.certificates = certificates
        # Its methods are made with arguments that the types of gRPC do not know.
        self.channel: Any = channel
        self.calls = CallsInFlight()

    def count(self, call: grpc.aio.Call) -> None:
        """Count a call until it ends."""
        self.calls.begin()
        call.add_done_callback(self._ended)

    def _ended(self, _: object) -> None:
        self.calls.end()

    async def end(self) -> None:
        """Close the channel once its calls have ended."""
        await self.calls.ended(None)
        await self.channel.close()


class RenewedChannel(grpc.aio.Channel):
    """Stands for whichever channel has the certificates in force."""

    def __init__(self, make: Making, certificates: Certificates) -> None:
        self._make = make
        self._generation = _Generation(certificates, make(certificates))
        self._replaced = asyncio.Event()
        self._ending: dict[asyncio.Task[None], _Generation] = {}

    @property
    def generation(self) -> _Generation:
        """The channel that new calls go over."""
        return self._generation

    async def follow(self, certificates: RotatingCertificates, *, longest_connecting_seconds: float = LONGEST_CONNECTING_SECONDS) -> None:
        """Renew the channel whenever there are other certificates, until cancelled."""
        while True:
            changed = await certificates.changed_from(self._generation.certificates)
            fresh = _Generation(changed, self._make(changed))
            try:
                await self._connected(fresh, longest_connecting_seconds)
            except BaseException:
                await fresh.channel.close()
                raise
            self._replace(fresh)

    async def _connected(self, fresh: _Generation, longest_seconds: float) -> None:
        """Wait until the new channel is ready, as long as the old one serves."""
        if self.get_state() is not grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(longest_seconds):
                await fresh.channel.channel_ready()
        except TimeoutError:
            _log.warning(
                "with the certificates that are in force now, the other end was not reached in %g s; new calls are made with them all the same", longest_seconds
            )

    def _replace(self, fresh: _Generation) -> None:
        old, self._generation = self._generation, fresh
        # Whoever waits holds the old event; whoever waits next gets a fresh one.
        self._replaced.set()
        self._replaced = asyncio.Event()
        ending = asyncio.create_task(old.end(), name="end of a renewed channel")
        self._ending[ending] = old
        ending.add_done_callback(lambda ended: self._ending.pop(ended, None))

    async def close(self, grace: float | None = None) -> None:
        """Close every channel; calls in flight get the grace, in seconds."""
        left = [self._generation, *self._ending.values()]
        for ending in list(self._ending):
            ending.cancel()
        await asyncio.gather(*(generation.channel.close(grace) for generation in left))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the connectivity."""
        state: grpc.ChannelConnectivity = self._generation.channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the connectivity is another one, or another channel's."""
        waits = [
            asyncio.ensure_future(self._generation.channel.wait_for_state_change(last_observed_state)),
            asyncio.ensure_future(self._replaced.wait()),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in waits:
                one.cancel()

    async def channel_ready(self) -> None:
        """Wait until a call could be sent."""
        state = self.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)
            state = self.get_state(try_to_connect=True)

    def unary_unary(self, method: str, *how: Any, **more: Any) -> Any:
        """Return what calls a method with one request and one response."""
        return _Calling(self, "unary_unary", (method, *how), more)

    def unary_stream(self, method: str, *how: Any, **more: Any) -> Any:
        """Return what calls a method with a stream of responses."""
        return _Calling(self, "unary_stream", (method, *how), more)

    def stream_unary(self, method: str, *how: Any, **more: Any) -> Any:
        """Return what calls a method with a stream of requests."""
        return _Calling(self, "stream_unary", (method, *how), more)

    def stream_stream(self, method: str, *how: Any, **more: Any) -> Any:
        """Return what calls a method with streams both ways."""
        return _Calling(self, "stream_stream", (method, *how), more)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()


class _Calling:
    """Calls one method over whichever channel counts, all kinds of methods alike."""

    def __init__(self, channel: RenewedChannel, kind: str, how: tuple[Any, ...], more: dict[str, Any]) -> None:
        self._channel = channel
        self._kind = kind
        self._how = how
        self._more = more
        self._generation: _Generation | None = None
        self._calling: Any = None

    def __call__(self, *request: Any, **how: Any) -> Any:
        """Begin a call."""
        generation = self._channel.generation
        if generation is not self._generation:
            self._calling = getattr(generation.channel, self._kind)(*self._how, **self._more)
            self._generation = generation
        call = self._calling(*request, **how)
        generation.count(call)
        return call


@asynccontextmanager
async def renewed_channel(make: Making, certificates: RotatingCertificates) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel that is renewed with the certificates; closing it ends its calls."""
    async with RenewedChannel(make, certificates.current) as channel:
        following = asyncio.create_task(channel.follow(certificates), name="renewal of a channel")
        try:
            yield channel
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
