"""A client of the limiter."""

import asyncio
from contextlib import aclosing

import pytest

from ensemble.v1 import limiter_service_pb2 as pb
from services.cli.connection import Connection
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.limits_client import Selection, limiter_at
from tests.support.fake_limiter import fake_limiter


async def test_leaving_a_watch_ends_it() -> None:
    """At the limiter, too, although the channel stays open."""
    async with fake_limiter() as limiter, limiter_at(Connection(address=limiter.address), watching=True) as client:
        limiter.streams = [[pb.WatchStateResponse(config_version=1)]]
        async with aclosing(client.watch(Selection())) as stream:
            assert (await anext(stream)).config_version == 1
        async with asyncio.timeout(10):
            await limiter.cancelled.wait()


async def test_what_is_no_address_is_refused() -> None:
    """Before gRPC stumbles over it."""
    with pytest.raises(CommandError, match="HOST:PORT") as caught:
        async with limiter_at(Connection(address="two words")):
            pass
    assert caught.value.code is ExitCode.WRONG
