"""The section `gateway.load`."""

import pytest

from tests.chassis.configuration.conftest import Load, Refused


def test_the_defaults_hold_without_a_word(load: Load) -> None:
    """A gateway is bounded whether or not anybody thought of it."""
    section = load().gateway.load
    assert (section.concurrency, section.queue, section.longest_wait_seconds, section.tenant_share) == (256, 256, 5.0, 0.5)
    assert (section.deadline_check, section.most_calls) == (True, None)


def test_every_key_is_read(load: Load) -> None:
    """As it is written."""
    text = "gateway: {load: {concurrency: 2, queue: 0, longest_wait: 250ms, tenant_share: 1, deadline_check: false, most_calls: 2}}"
    section = load(text).gateway.load
    assert (section.concurrency, section.queue, section.longest_wait_seconds, section.tenant_share) == (2, 0, 0.25, 1.0)
    assert (section.deadline_check, section.most_calls) == (False, 2)


def test_the_environment_reaches_it(load: Load) -> None:
    """Like any other key."""
    assert load(environ={"ENSEMBLE__GATEWAY__LOAD__CONCURRENCY": "7"}).gateway.load.concurrency == 7


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("load: 8", "gateway.load", "must be a mapping"),
        ("load: {concurency: 8}", "gateway.load.concurency", 'is not known; did you mean "concurrency"?'),
        ("load: {concurrency: 0}", "gateway.load.concurrency", "must be at least 1"),
        ("load: {concurrency: 10001}", "gateway.load.concurrency", "must be at most 10000"),
        ("load: {concurrency: 1.5}", "gateway.load.concurrency", "must be a whole number"),
        ("load: {queue: -1}", "gateway.load.queue", "must be at least 0"),
        ("load: {queue: 10001}", "gateway.load.queue", "must be at most 10000"),
        ("load: {longest_wait: 0s}", "gateway.load.longest_wait", "must be at least 0.001"),
        ("load: {longest_wait: 2h}", "gateway.load.longest_wait", "must be at most 3600"),
        ("load: {longest_wait: 5}", "gateway.load.longest_wait", 'must be a duration with its unit, for example "500ms", "60s", "10m" or "1h"'),
        ("load: {tenant_share: 0}", "gateway.load.tenant_share", "must be above 0"),
        ("load: {tenant_share: 1.1}", "gateway.load.tenant_share", "must be at most 1"),
        ("load: {deadline_check: 'no'}", "gateway.load.deadline_check", "must be true or false"),
        ("load: {most_calls: 0}", "gateway.load.most_calls", "must be at least 1"),
        ("load: {most_calls: 100001}", "gateway.load.most_calls", "must be at most 100000"),
        ("load: {concurrency: 10, queue: 5, most_calls: 14}", "gateway.load.most_calls", "must not be below concurrency and queue together"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(refused: Refused, text: str, path: str, message: str) -> None:
    """Each mistake is told alone, at its path, in words that say what would be right."""
    assert [(each.path, each.message) for each in refused(f"gateway: {{{text}}}")] == [(path, message)]


def test_a_wrong_number_of_places_is_told_once(refused: Refused) -> None:
    """What would follow from it is not told beside it."""
    assert [problem.path for problem in refused("gateway: {load: {concurrency: x, queue: y, most_calls: 1}}")] == [
        "gateway.load.concurrency",
        "gateway.load.queue",
    ]
