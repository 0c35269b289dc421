"""What a guarded store keeps for the time when its store is down, and tells it when it is back: operators' words, and new limits."""

import asyncio
import logging
from dataclasses import replace

import pytest

from services.limiter.limits import Limits, ModelLimits, TenantLimits
from services.models.permits import OverrideMode
from tests.support.scripted_store import LIMITS, Guarded

OTHERS = replace(LIMITS, models={**LIMITS.models, "free": ModelLimits(concurrency=4), "new": ModelLimits()})


@pytest.mark.parametrize("heard", ["said here", "seen in the state"])
async def test_an_override_holds_while_the_store_is_down(heard: str) -> None:
    """For the rest of its time, whoever was told of it; then it ends here as there."""
    guarded = Guarded()
    if heard == "said here":
        await guarded.guarded.override("free", OverrideMode.FORCED_OPEN, 60)
    else:
        guarded.store.ledger.override("free", OverrideMode.FORCED_OPEN, 60)
        await guarded.guarded.state()
    guarded.now += 20
    guarded.store.down = True
    assert await guarded.reasons("free", "m") == ["FORCED_OPEN", "granted"]
    state = (await guarded.guarded.state(["free"])).models[0]
    assert state.override is OverrideMode.FORCED_OPEN
    assert state.override_seconds == pytest.approx(40)
    guarded.now += 40
    assert await guarded.reasons("free") == ["granted"]


async def test_an_override_that_has_ended_or_was_lifted_is_not_kept() -> None:
    """Neither one that ran out before the store went, nor one that was lifted, whoever lifted it."""
    guarded = Guarded()
    await guarded.guarded.override("m", OverrideMode.FORCED_OPEN, 5)
    await guarded.guarded.override("free", OverrideMode.FORCED_OPEN, 60)
    await guarded.guarded.override("free", None, 0)
    guarded.now += 6
    guarded.store.down = True
    assert await guarded.reasons("free", "m") == ["granted", "granted"]


async def test_an_override_that_was_lifted_between_two_outages_does_not_come_back() -> None:
    """What was kept for the first outage is not in force in the second; another one that came meanwhile is."""
    guarded = Guarded()
    await guarded.guarded.override("free", OverrideMode.FORCED_OPEN, 3600)
    guarded.store.down = True
    assert await guarded.reasons("free") == ["FORCED_OPEN"]
    guarded.store.down = False
    guarded.now += 10
    await guarded.guarded.override("free", None, 0)
    await guarded.guarded.override("m", OverrideMode.FORCED_OPEN, 60)
    guarded.store.down = True
    assert await guarded.reasons("free", "m") == ["granted", "FORCED_OPEN"]


async def test_an_override_of_a_model_that_is_gone_is_forgotten() -> None:
    """New limits without it leave nothing to be overridden."""
    guarded = Guarded()
    await guarded.guarded.override("free", OverrideMode.FORCED_OPEN, 60)
    await guarded.guarded.follow(replace(LIMITS, models={"m": LIMITS.models["m"]}))
    guarded.store.down = True
    assert await guarded.reasons("m") == ["granted"]


async def test_new_limits_hold_there_and_here_at_once() -> None:
    """The store is told while it is up, once; the local share is one of the new limits."""
    guarded = Guarded()
    await guarded.guarded.follow(OTHERS)
    assert guarded.store.followed == [OTHERS]
    assert await guarded.reasons(*["free"] * 5, "new") == ["granted"] * 4 + ["CONCURRENCY", "granted"]
    assert guarded.store.followed == [OTHERS]
    guarded.store.down = True
    assert await guarded.reasons(*["free"] * 3, "new") == ["granted"] * 2 + ["CONCURRENCY", "granted"]


async def test_a_store_that_is_down_is_told_of_new_limits_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """Before anything else is asked of it, and of the last ones only; meanwhile they hold here."""
    caplog.set_level(logging.WARNING, logger="services.limiter.guarded_store")
    guarded = Guarded()
    guarded.store.down = True
    await guarded.guarded.follow(replace(LIMITS, revision=1))
    await guarded.guarded.follow(OTHERS)
    assert "told of the new limits when it is back" in caplog.text
    assert await guarded.reasons("new") == ["granted"]
    assert guarded.store.followed == []
    guarded.store.down = False
    guarded.now += 10
    asked = len(guarded.store.asked)
    assert not (await guarded.reply("new")).degraded
    assert guarded.store.asked[asked:] == ["follow", "acquire"]
    assert guarded.store.followed == [OTHERS]
    await guarded.reply("new")
    assert guarded.store.followed == [OTHERS]


async def test_limits_that_come_while_the_store_is_told_of_others_are_not_lost() -> None:
    """Though telling them failed: the end of the earlier telling does not count for them."""
    guarded = Guarded()
    guarded.store.gate = asyncio.Event()
    first = asyncio.create_task(guarded.guarded.follow(replace(LIMITS, revision=1)))
    while guarded.store.asked != ["follow"]:
        await asyncio.sleep(0)
    held, guarded.store.gate = guarded.store.gate, None
    guarded.store.down = True
    await guarded.guarded.follow(OTHERS)
    guarded.store.down = False
    held.set()
    await first
    assert not (await guarded.reply("new")).degraded
    assert guarded.store.followed[-1] == OTHERS


async def test_limits_without_models_can_be_followed() -> None:
    """Nobody can be asked for, and nothing breaks."""
    guarded = Guarded()
    await guarded.guarded.follow(Limits(models={}, tenants={"t": TenantLimits()}))
    assert (await guarded.guarded.state()).models == ()
