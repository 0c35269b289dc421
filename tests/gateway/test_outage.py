"""A store that is down, in the log."""

import logging

import pytest

from services.gateway.kept_answers import StoreDown, StoreHurried
from services.gateway.outage import REST_SECONDS, Outage
from tests.support.answer_stores import Clock


def test_it_is_said_once_as_it_goes_and_once_as_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """However often it fails in between; it rests for a while after each failure."""
    clock = Clock()
    outage = Outage("store", "nothing works", clock=clock)
    with caplog.at_level(logging.INFO, "services.gateway"):
        for _ in range(2):
            outage.answered()
            rests = [outage.resting]
            for _ in range(10):
                outage.failed(StoreDown("TimeoutError"))
                rests.append(outage.resting)
                clock.now += REST_SECONDS
                rests.append(outage.resting)
            assert rests == [False, *[True, False] * 10]
        outage.answered()
    assert caplog.messages == ["the store is down (TimeoutError): nothing works", "the store is back"] * 2


def test_one_in_a_hurry_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """Who had no time to wait says nothing about the store."""
    outage = Outage("store", "nothing works", clock=Clock())
    outage.failed(StoreHurried("no time to ask"))
    assert not outage.resting
    assert caplog.messages == []
