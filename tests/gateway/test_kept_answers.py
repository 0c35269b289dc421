"""Claims and cached answers: both stores, in memory and in a real Redis, do what a naive model of them does, at each step of the same histories."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.kept_answers import ENTRY_OVERHEAD_BYTES, Claimed, Entry, Finished, OtherContent, Running, Standing
from tests.support.answer_stores import AnswerStores, in_memory, in_redis
from tests.support.redis_server import RedisServer, redis_server

WINDOW, LEASE = 60, 10
MOST = 4 * (ENTRY_OVERHEAD_BYTES + 100)
"""Room for four answers of a hundred bytes."""
NAMES = [digit * 64 for digit in "0123456789"]
CONTENTS = [letter * 32 for letter in (b"a", b"b")]
SOON = 60.0


@dataclass(slots=True)
class Shelf:
    """Answers as a naive list of name, content, data, time and end; whatever ends first makes room."""

    kept: list[tuple[str, bytes, bytes, float, float]] = field(default_factory=list)

    def at(self, name: str, now: float) -> tuple[str, bytes, bytes, float, float] | None:
        """Return what is kept under a name."""
        return next((one for one in self.kept if one[0] == name and one[4] > now), None)

    def total(self) -> int:
        """Return what all takes."""
        return sum(len(one[2]) + ENTRY_OVERHEAD_BYTES for one in self.kept)

    def keep(self, name: str, content: bytes, data: bytes, now: float, lasts: float) -> bool:
        """Keep an answer, if it fits."""
        self.kept = [one for one in self.kept if one[0] != name and one[4] > now]
        size = len(data) + ENTRY_OVERHEAD_BYTES
        if size > MOST:
            return False
        while self.total() + size > MOST:
            self.kept.remove(min(self.kept, key=lambda one: (one[4], one[0])))
        self.kept.append((name, content, data, now, now + lasts))
        return True


@dataclass(slots=True)
class Model:
    """What both stores shall do."""

    now: float = 0.0
    finished: Shelf = field(default_factory=Shelf)
    cached: Shelf = field(default_factory=Shelf)
    claims: dict[str, tuple[bytes, str, float]] = field(default_factory=dict)

    def held(self, name: str) -> tuple[bytes, str, float] | None:
        """Return the claim that holds."""
        held = self.claims.get(name)
        return held if held is not None and held[2] > self.now else None

    def claim(self, name: str, content: bytes, owner: str) -> Standing:
        """Claim."""
        if (kept := self.finished.at(name, self.now)) is not None:
            return Finished(result=kept[2]) if kept[1] == content else OtherContent()
        held = self.held(name)
        if held is not None and held[1] != owner:
            return Running() if held[0] == content else OtherContent()
        self.claims[name] = (content, owner, self.now + LEASE)
        return Claimed()

    def finish(self, name: str, content: bytes, owner: str, result: bytes) -> Finished:
        """Finish."""
        kept, held = self.finished.at(name, self.now), self.held(name)
        self.release(name, owner)
        if kept is not None:
            return Finished(result=kept[2] if kept[1] == content else result)
        if held is None or held[1] == owner or held[0] == content:
            self.finished.keep(name, content, result, self.now, WINDOW)
        return Finished(result=result)

    def release(self, name: str, owner: str) -> None:
        """Give up."""
        if name in self.claims and self.claims[name][1] == owner:
            del self.claims[name]

    def get(self, name: str) -> Entry | None:
        """Return what is cached."""
        kept = self.cached.at(name, self.now)
        return None if kept is None else Entry(data=kept[2], age_seconds=self.now - kept[3])


names = st.sampled_from(NAMES)
contents = st.sampled_from(CONTENTS)
owners = st.sampled_from(["one", "other"])
sizes = st.sampled_from([0, 1, 50, 100, 100, 100, 356, 700, MOST - ENTRY_OVERHEAD_BYTES, MOST - ENTRY_OVERHEAD_BYTES + 1, 3 * MOST])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), names, contents, owners),
        st.tuples(st.just("finish"), names, contents, owners, sizes),
        st.tuples(st.just("release"), names, owners),
        st.tuples(st.just("get"), names),
        st.tuples(st.just("put"), names, sizes, st.sampled_from([1, 5, 20, 300])),
        st.tuples(st.just("wait"), st.sampled_from([1, 4, 9, 10, 11, 60])),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def loop_and_server() -> Iterator[tuple[asyncio.Runner, RedisServer]]:
    """Run one server, in an event loop that ordinary functions can wait in."""
    with asyncio.Runner() as runner:
        context = redis_server()
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


async def _walk(stores: AnswerStores, history: list[tuple[object, ...]]) -> None:
    """Take the steps with the stores and with the model, and compare what both say."""
    model = Model()
    claims, entries = stores.claims, stores.entries
    for number, step in enumerate(history):
        match step:
            case ("claim", str(name), bytes(content), str(owner)):
                assert await claims.claim(name, content, owner, within_seconds=SOON) == model.claim(name, content, owner)
            case ("finish", str(name), bytes(content), str(owner), int(size)):
                result = bytes([number % 256]) * size
                assert await claims.finish(name, content, owner, result, within_seconds=SOON) == model.finish(name, content, owner, result)
            case ("release", str(name), str(owner)):
                await claims.release(name, owner, within_seconds=SOON)
                model.release(name, owner)
            case ("get", str(name)):
                assert await entries.get(name, within_seconds=SOON) == model.get(name)
            case ("put", str(name), int(size), int(ttl)):
                data = bytes([number % 256]) * size
                assert await entries.put(name, data, ttl, within_seconds=SOON) == model.cached.keep(name, b"", data, model.now, ttl)
            case ("wait", int(seconds)):
                await stores.wait(seconds)
                model.now += seconds
        await _within_bounds(stores, model)
    for name in NAMES:
        assert await entries.get(name, within_seconds=SOON) == model.get(name)
        for content in CONTENTS:
            assert await claims.claim(name, content, "a third", within_seconds=SOON) == model.claim(name, content, "a third")


async def _within_bounds(stores: AnswerStores, model: Model) -> None:
    if stores.redis is None:
        return
    for kind, shelf, ahead in (("replays", model.finished, 32), ("cache", model.cached, 13)):
        counted, there, number = await stores.bytes_in_redis(kind)
        assert counted == there + number * (ENTRY_OVERHEAD_BYTES - ahead) == shelf.total() <= MOST


@given(steps)
def test_memory_does_as_the_model(history: list[tuple[object, ...]]) -> None:
    """Claims, leases, first results, windows, ages, and which answers make room, in any order."""
    asyncio.run(_walk(in_memory(window=WINDOW, lease=LEASE, most_bytes=MOST), history))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_redis_does_as_the_model(loop_and_server: tuple[asyncio.Runner, RedisServer], history: list[tuple[object, ...]]) -> None:
    """The same, in a real server; after each step its counter of bytes is right, and within the bound."""
    _walk_in_redis(loop_and_server, history)


@pytest.mark.parametrize("seed", range(6))
def test_both_do_as_the_model_for_long(loop_and_server: tuple[asyncio.Runner, RedisServer], seed: int) -> None:
    """Long histories of what happens most, in which the bound is met all the time."""
    chance = random.Random(seed)
    history = [_ordinary(chance) for _ in range(400)]
    asyncio.run(_walk(in_memory(window=WINDOW, lease=LEASE, most_bytes=MOST), history))
    _walk_in_redis(loop_and_server, history)


def _ordinary(chance: random.Random) -> tuple[object, ...]:
    name, content, size = chance.choice(NAMES), chance.choice(CONTENTS), chance.choice([1, 90, 100, 120, 300])
    kind = chance.choice(["finish", "finish", "put", "put", "get", "get", "claim", "wait"])
    match kind:
        case "finish":
            return kind, name, content, chance.choice(["one", "other"]), size
        case "put":
            return kind, name, size, chance.choice([5, 20, 20, 300])
        case "get":
            return kind, name
        case "claim":
            return kind, name, content, chance.choice(["one", "other"])
        case _:
            return kind, chance.choice([1, 1, 2, 9])


def _walk_in_redis(loop_and_server: tuple[asyncio.Runner, RedisServer], history: list[tuple[object, ...]]) -> None:
    runner, server = loop_and_server

    async def walk() -> None:
        async with server.client() as client:
            await _walk(await in_redis(client, window=WINDOW, lease=LEASE, most_bytes=MOST), history)

    runner.run(walk())
