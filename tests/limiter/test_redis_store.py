"""The store in Redis, on a real redis-server: what only it has to bear. That its decisions are those of the ledger is seen in test_stores_agree.py."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from services.chassis.configuration import StoreSection
from services.chassis.errors import NotFound
from services.chassis.redis_client import CONNECTIONS, PATIENCE, open_redis
from services.limiter.limits import Limits, ModelLimits, PermitRules, TenantLimits
from services.limiter.redis_store import RedisStore
from services.limiter.store import StoreDown, StoreUnsuitable
from services.models.permits import AcquireReply, AcquireRequest, CallResult, Denial, Permit, PermitOutcome, PermitSpec, Settlement
from tests.support.redis_server import RedisServer, redis_server
from tests.support.redis_stores import numbered, set_clock, timed_store

RULES = PermitRules(longest_lease_seconds=60, late_report_grace_seconds=20, idempotency_window_seconds=30)
LIMITS = Limits(
    models={"m": ModelLimits(requests_per_minute=240, concurrency=6), "wide": ModelLimits(concurrency=1000)},
    tenants={"t": TenantLimits(budget_per_day=1000)},
    rules=RULES,
)
NOON = 1_700_000_000.0


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """Run a server for one test."""
    async with redis_server() as running:
        yield running


@pytest.fixture
async def client(server: RedisServer) -> Redis:
    """Return a client of it."""
    return server.client()


class Stores:
    """Opens stores with the server's own clock, as limiters do, and closes them."""

    def __init__(self) -> None:
        self._opened: list[RedisStore] = []

    def on(self, server: RedisServer, limits: Limits = LIMITS, *, pool: str = "p", timeout: float = 5.0) -> RedisStore:
        """Open one."""
        redis = open_redis(StoreSection(kind="redis", url=server.url), client_name="ensemble-test")
        self._opened.append(RedisStore(redis, limits, pool=pool, timeout_seconds=timeout))
        return self._opened[-1]

    async def aclose(self) -> None:
        """Close them."""
        for store in self._opened:
            await store.aclose()


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    """Close what a test has opened."""
    opened = Stores()
    yield opened
    await opened.aclose()


async def take(store: RedisStore, count: int = 1, *, model: str = "m", name: str = "r", lease: float = 30.0, tenant: str = "") -> AcquireReply:
    """Ask for permits."""
    return await store.acquire(AcquireRequest(request_id=name, specs=(PermitSpec(model=model),) * count, lease_seconds=lease, tenant=tenant))


def ids(reply: AcquireReply) -> list[str]:
    """Return the ids of what was granted."""
    return [one.permit_id for one in reply.decisions if isinstance(one, Permit)]


async def in_flight(store: RedisStore, model: str = "m") -> int:
    """Return how many calls are under way."""
    return (await store.state([model])).models[0].in_flight


async def test_limiters_on_one_pool_decide_as_one(stores: Stores, server: RedisServer) -> None:
    """I1, I6: what one grants the other counts, repeats and settles; another pool knows nothing of it."""
    one, other, stranger = stores.on(server), stores.on(server), stores.on(server, pool="q")
    granted = await take(one, 4)
    assert ids(granted) == ids(await take(other, 4))
    assert len(ids(await take(other, 4, name="s"))) == 2
    assert (await in_flight(one), await in_flight(stranger)) == (6, 0)
    report = [PermitOutcome(permit_id=ids(granted)[0], result=CallResult.SUCCESS)]
    assert (await other.report(report), await one.report(report)) == ((Settlement.SETTLED,), (Settlement.DUPLICATE,))
    assert await stranger.report(report) == (Settlement.UNKNOWN,)


async def test_a_server_that_forgets_its_scripts(stores: Stores, server: RedisServer) -> None:
    """SCRIPT FLUSH costs one more round trip, and nothing else."""
    store = stores.on(server)
    granted = ids(await take(store))
    await server.script_flush()
    assert await in_flight(store) == 1
    assert await store.release(granted) == (Settlement.SETTLED,)


async def test_lost_data_make_it_careful(server: RedisServer, client: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """After FLUSHALL, for one longest lease, buckets begin at a quarter and concurrency is halved; the warning comes once. Then all is as it was."""
    await set_clock(client, "p", NOON)
    store = timed_store(client, LIMITS, "p")
    full = (await store.state(["m"])).models[0]
    await server.flush()
    await set_clock(client, "p", NOON + 1)
    with caplog.at_level(logging.WARNING):
        state = await store.state(["m"])
        await store.state(["m"])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    levels = {level.name: (level.remaining, level.effective) for level in state.models[0].limits}
    assert levels == {"requests_per_minute": (10, 240), "concurrency": (3, 3), "retries": (2, 10)}
    assert state.learning_seconds == 60.0
    await set_clock(client, "p", NOON + 61)
    state = await store.state(["m"])
    assert (state.models[0], state.learning_seconds) == (full, None)


async def test_a_fresh_server_is_no_lost_one(stores: Stores, server: RedisServer) -> None:
    """Who never knew any data starts with full buckets, and others that knew none join."""
    for store in (stores.on(server), stores.on(server)):
        state = await store.state(["m"])
        assert (state.models[0].limits[0].remaining, state.learning_seconds) == (40, None)


async def test_whoever_finds_the_loss_first_others_are_careful_too(stores: Stores, server: RedisServer) -> None:
    """A limiter without memory may begin anew; one that remembers the data makes all careful, and is so even if it comes second."""
    knows, other = stores.on(server), stores.on(server)
    await knows.state()
    await server.restart()
    assert (await other.state()).learning_seconds is None
    await take(other)
    assert (await knows.state(["m"])).learning_seconds is not None
    state = await other.state(["m"])
    assert state.learning_seconds is not None
    assert state.models[0].limits[0].remaining <= 11


async def test_data_that_are_kept_are_trusted(stores: Stores, server: RedisServer) -> None:
    """A restart with its data changes nothing: leases go on, and nobody is careful."""
    store = stores.on(server)
    await take(store, 2)
    await server.restart(keep_data=True)
    state = await store.state(["m"])
    assert (state.models[0].in_flight, state.learning_seconds) == (2, None)


async def test_a_server_that_does_not_answer_is_down(stores: Stores, server: RedisServer) -> None:
    """It is waited for no longer than it may take; what it grants when it goes on, and nobody was told of, is given back."""
    store, witness = await overtaken(stores, server)
    await store.state()
    assert await in_flight(witness) == 0


async def overtaken(stores: Stores, server: RedisServer) -> tuple[RedisStore, RedisStore]:
    """Return a store whose question the server answered only after it was no longer waited for, and one that has seen it."""
    store, witness = stores.on(server, timeout=0.2), stores.on(server)
    await store.state()
    server.stop_answering()
    with pytest.raises(StoreDown):
        await take(store, 3)
    server.go_on()
    while await in_flight(witness) == 0:
        # The server works off what it received while it stood still.
        pass
    return store, witness


async def test_a_repeat_makes_it_somebodys(stores: Stores, server: RedisServer) -> None:
    """What was granted too late and then asked for again has a holder, whichever limiter was asked: it is not given back."""
    for name in ("same", "other"):
        await server.flush()
        store, witness = await overtaken(stores, server)
        granted = ids(await take(store if name == "same" else witness, 3))
        await store.state()
        assert await in_flight(witness) == 3
        assert await witness.report([PermitOutcome(permit_id=granted[0], result=CallResult.SUCCESS)]) == (Settlement.SETTLED,)


async def test_a_repeat_after_it_was_given_back_is_judged_afresh(stores: Stores, server: RedisServer) -> None:
    """It gets permits that are really held."""
    store, witness = await overtaken(stores, server)
    await store.state()
    again = await take(store, 3)
    assert [one.lease_seconds for one in again.decisions if isinstance(one, Permit)] == [30.0] * 3
    assert await in_flight(witness) == 3


async def test_a_held_permit_is_not_given_back_with_its_repeat(stores: Stores, server: RedisServer) -> None:
    """A repeat that is no longer waited for gives back nothing of what the first request was told."""
    store, witness = stores.on(server, timeout=0.2), stores.on(server)
    await take(store, 3)
    server.stop_answering()
    with pytest.raises(StoreDown):
        await take(store, 3)
    server.go_on()
    await witness.state()
    await store.state()
    assert await in_flight(witness) == 3
    # Nor with one that the server never got to see.
    await take(store, name="unseen", model="wide")
    answering, store._redis.client = store._redis.client, open_redis(StoreSection(kind="redis", url="redis://127.0.0.1:1/0"), client_name="ensemble-test")
    with pytest.raises(StoreDown):
        await take(store, name="unseen", model="wide")
    await store._redis.client.aclose()
    store._redis.client = answering
    await store.state()
    assert await in_flight(witness, "wide") == 1


async def test_those_who_wait_for_their_turn_do_not_wait_for_nothing(stores: Stores, server: RedisServer) -> None:
    """Once it has failed a few, the others that wait are not asked in turn."""
    store = stores.on(server, timeout=0.2)
    await store.state()
    server.stop_answering()
    told = await asyncio.gather(*(take(store, name=f"r{number}") for number in range(100)), return_exceptions=True)
    server.go_on()
    assert all(isinstance(one, StoreDown) for one in told)
    # Those of the first turn, and those whose turn came before they were so many.
    assert sum("asked before" not in str(one) for one in told) <= CONNECTIONS + PATIENCE


async def test_a_dead_server_is_down(stores: Stores, server: RedisServer) -> None:
    """A refused connection is told as such, at once."""
    store = stores.on(server)
    await store.state()
    await server.kill()
    with pytest.raises(StoreDown):
        await take(store)


async def test_an_evicting_server_is_refused(stores: Stores) -> None:
    """A server that may drop permits and budgets for want of memory is not begun with; the reason says what to change."""
    async with redis_server("--maxmemory-policy", "allkeys-lru") as evicting:
        with pytest.raises(StoreUnsuitable, match=r"allkeys-lru.*noeviction"):
            await stores.on(evicting).prepare()
        with pytest.raises(StoreUnsuitable):
            await take(stores.on(evicting))


async def test_a_full_server_is_down(stores: Stores) -> None:
    """What cannot be written is not granted."""
    async with redis_server("--maxmemory", "200kb") as full:
        with pytest.raises(StoreDown):
            await take(stores.on(full))


async def test_forged_ids_move_nothing(stores: Stores, server: RedisServer, client: Redis) -> None:
    """Neither an id of another shape nor one that names a model it does not belong to changes anything, or leaves a key behind."""
    store = stores.on(server)
    (real,) = ids(await take(store))
    before = sorted(await client.keys())
    wide = ids(await take(store, model="wide", name="w"))[0]
    forged = ["x", "", "f" * 32, real.partition(".")[0], real.partition(".")[0] + "." + wide.partition(".")[2], "0" * 32 + ".123456789abc", real + ".0"]
    for one in forged:
        assert await store.report([PermitOutcome(permit_id=one, result=CallResult.FAILURE)]) == (Settlement.UNKNOWN,)
        assert await store.release([one]) == (Settlement.UNKNOWN,)
        assert (await store.renew([one], 30.0))[0].lease_seconds is None
    assert (await in_flight(store), await in_flight(store, "wide")) == (1, 1)
    assert "123456789abc" not in " ".join(str(key) for key in await client.keys())
    assert set(before) <= set(await client.keys())


async def test_many_leases_that_end_at_once(client: Redis) -> None:
    """I1: more than are swept in one go count no longer all the same, and the rest is swept later."""
    await set_clock(client, "p", NOON)
    store = timed_store(client, LIMITS, "p")
    for number in range(5):
        await take(store, 64, model="wide", name=f"r{number}", tenant="t")
    assert await in_flight(store, "wide") == 320
    await set_clock(client, "p", NOON + 30)
    assert await in_flight(store, "wide") == 0
    assert await client.zcard(next(key for key in await client.keys("*m:*:leases"))) == 220
    for _ in range(3):
        await take(store, model="wide", name="again", tenant="t")
    assert await client.zcard(next(key for key in await client.keys("*m:*:leases"))) == 1


async def test_nothing_is_kept_for_ever(client: Redis) -> None:
    """I5: when all has ended and the windows have passed, permits and requests are forgotten."""
    await set_clock(client, "p", NOON)
    store = timed_store(client, LIMITS, "p")
    for number in range(20):
        await take(store, 2, model="wide", name=f"r{number}", tenant="t")
    for step in range(1, 5):
        await set_clock(client, "p", NOON + 60 * step)
        await store.state()
    left = " ".join(str(key) for key in await client.keys())
    assert "clock" in left
    assert not [part for part in ("permits", "requests", "forget", "leases") if part in left]


async def test_the_servers_clock_may_go_wrong(client: Redis) -> None:
    """Going back it stands still and then goes on; leaping forward it is worth one longest lease at most."""
    await set_clock(client, "p", NOON)
    store = timed_store(client, LIMITS, "p")
    (permit,) = ids(await take(store, lease=30.0))
    await set_clock(client, "p", NOON - 86_400)
    assert await in_flight(store) == 1
    await set_clock(client, "p", NOON - 86_400 + 29)
    assert await in_flight(store) == 1
    await set_clock(client, "p", NOON - 86_400 + 30)
    assert await in_flight(store) == 0
    assert await store.report([PermitOutcome(permit_id=permit, result=CallResult.SUCCESS)]) == (Settlement.LATE,)
    await store.override("m", None, 1.0)
    for _ in range(240):
        await take(store, 6, name="burst")
    await set_clock(client, "p", NOON + 40 * 365 * 86_400)
    assert (await store.state(["m"])).models[0].limits[0].remaining == 40


async def test_two_versions_do_not_flip(stores: Stores, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """New limits are taken from whoever brings them; whoever starts with superseded ones goes by the new ones and says so; a revision brings them back."""
    new_limits = replace(LIMITS, models={**LIMITS.models, "m": ModelLimits(concurrency=2)})
    old, new = stores.on(server), stores.on(server, new_limits)
    await old.prepare()
    await new.prepare()
    assert [(await store.state(["m"])).models[0].limits[0].limit for store in (old, new)] == [2, 2]
    late = stores.on(server)
    with caplog.at_level(logging.WARNING):
        await late.prepare()
    assert "newer limits" in caplog.text
    assert ((await late.state(["m"])).config_version, (await late.state(["m"])).models[0].limits[0].limit) == (2, 2)
    # Neither an operation nor a second look brings the old ones back.
    await take(old)
    await late.prepare()
    assert (await new.state()).config_version == 2
    # A limiter whose limits are in force goes back to what was before; so does one with another revision.
    await new.follow(LIMITS)
    assert ((await new.state()).config_version, (await new.state(["m"])).models[0].limits[0].limit) == (3, 240)
    again = stores.on(server, replace(new_limits, revision=1))
    await again.prepare()
    assert ((await again.state()).config_version, (await old.state(["m"])).models[0].limits[0].limit) == (4, 2)


async def test_superseded_limits_do_not_come_back_with_a_loss(stores: Stores, server: RedisServer) -> None:
    """When the store has lost its data, a limiter that knows its limits to be superseded leaves it to others to bring theirs; versions never go back."""
    new_limits = replace(LIMITS, models={**LIMITS.models, "m": ModelLimits(concurrency=2)})
    old, new = stores.on(server), stores.on(server, new_limits)
    await old.prepare()
    await new.prepare()
    late = stores.on(server)
    await late.prepare()
    # As it does every other second: it learns that others are in force.
    await old.state()
    await server.flush()
    await new.state()
    for store in (late, old):
        assert (await store.state(["m"])).models[0].limits[0].limit == 2
    assert (await late.state()).config_version == 3


async def test_who_was_superseded_may_bring_new_limits(stores: Stores, server: RedisServer) -> None:
    """A limiter that reads its old limits again changes nothing; what it reads after that counts as anybody's."""
    one, other = stores.on(server), stores.on(server, replace(LIMITS, models={**LIMITS.models, "m": ModelLimits(concurrency=2)}))
    await one.prepare()
    await other.prepare()
    await one.follow(LIMITS)
    assert (await one.state(["m"])).models[0].limits[0].limit == 2
    await one.follow(replace(LIMITS, models={**LIMITS.models, "m": ModelLimits(concurrency=7)}))
    assert (await other.state(["m"])).models[0].limits[0].limit == 7
    await one.follow(replace(LIMITS, revision=1))
    assert (await other.state(["m"])).models[0].limits[0].limit == 240


async def test_a_model_that_the_limits_in_force_do_not_know(stores: Stores, server: RedisServer) -> None:
    """A limiter that starts with superseded limits cannot grant what only they have: it is as unknown as any other name, and nothing is charged."""
    more = replace(LIMITS, models={**LIMITS.models, "extra": ModelLimits()})
    await stores.on(server, more).prepare()
    await stores.on(server).prepare()
    late = stores.on(server, more)
    await late.prepare()
    specs = (PermitSpec(model="m"), PermitSpec(model="gone"))
    with pytest.raises(NotFound):
        await late.acquire(AcquireRequest(request_id="r", specs=specs))
    assert isinstance((await take(late)).decisions[0], Permit)
    assert len((await late.state()).models) in {2, 3}


async def test_denials_are_judged_afresh(client: Redis) -> None:
    """A repeat finds its grants again and asks anew for what was denied."""
    await set_clock(client, "p", NOON)
    store = timed_store(client, LIMITS, "p")
    first = await take(store, 8)
    assert [isinstance(one, Denial) for one in first.decisions] == [False] * 6 + [True] * 2
    await store.release(ids(first)[:1])
    second = await take(store, 8)
    assert ids(second)[:6] == ids(first)
    assert [isinstance(one, Denial) for one in second.decisions] == [False] * 7 + [True]


def test_ids_are_not_to_be_guessed() -> None:
    """Ids are random; those of the tests only count."""
    assert numbered()() == f"{1:032x}"
