"""What the gateway keeps of answers: its sections of the configuration."""

import pytest

from services.chassis.configuration import answering_digest
from tests.chassis.configuration.conftest import Load, Refused

KINDS = "must be 'memory' or 'redis'"
UNIT = 'must be a duration with its unit, for example "500ms", "60s", "10m" or "1h"'


def profile(cache: str) -> str:
    """Return a profile with this cache."""
    return f"profiles: {{single: {{cache: {cache}}}}}"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("gateway: {idempotency: {zzz: 1}}", "gateway.idempotency.zzz", "is not known; known are lease, most_bytes, store, window"),
        ("gateway: {idempotency: {store: disk}}", "gateway.idempotency.store", KINDS),
        ("gateway: {idempotency: {window: 600}}", "gateway.idempotency.window", UNIT),
        ("gateway: {idempotency: {window: 0s}}", "gateway.idempotency.window", "must be at least 0.001"),
        ("gateway: {idempotency: {window: 25h}}", "gateway.idempotency.window", "must be at most 86400"),
        ("gateway: {idempotency: {lease: 999ms}}", "gateway.idempotency.lease", "must be at least 1"),
        ("gateway: {idempotency: {lease: 11m}}", "gateway.idempotency.lease", "must be at most 600"),
        ("gateway: {idempotency: {most_bytes: 1000}}", "gateway.idempotency.most_bytes", "must be at least 1048576"),
        ("gateway: {idempotency: {most_bytes: 64MiB}}", "gateway.idempotency.most_bytes", "must be a whole number"),
        ("gateway: {cache: {window: 1s}}", "gateway.cache.window", "is not known; known are most_bytes, store"),
        ("gateway: {cache: {store: 1}}", "gateway.cache.store", KINDS),
        ("gateway: {cache: {most_bytes: 1e20}}", "gateway.cache.most_bytes", "must be a whole number"),
        (profile("1h"), "profiles.single.cache", "must be a mapping"),
        (profile("{}"), "profiles.single.cache.ttl", "is required"),
        (profile("{ttl: 3600}"), "profiles.single.cache.ttl", UNIT),
        (profile("{ttl: 0s}"), "profiles.single.cache.ttl", "must be at least 0.001"),
        (profile("{ttl: 25h}"), "profiles.single.cache.ttl", "must be at most 86400"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(refused: Refused, text: str, path: str, message: str) -> None:
    """Each mistake is told alone, at its path, in words that say what would be right."""
    assert [(each.path, each.message) for each in refused(text)] == [(path, message)]


def test_the_defaults(load: Load) -> None:
    """Repeats are known in memory for ten minutes, as the contract says, and nothing is cached."""
    configuration = load()
    told = configuration.gateway.idempotency
    assert (told.store, told.window_seconds, told.lease_seconds, told.most_bytes) == ("memory", 600.0, 10.0, 64 << 20)
    assert (configuration.gateway.cache.store, configuration.gateway.cache.most_bytes) == ("memory", 64 << 20)
    assert [name for name, one in configuration.profiles.items() if one.cache is not None] == []


def test_what_was_set_is_read(load: Load) -> None:
    """Each key reaches its setting."""
    configuration = load(
        "gateway: {idempotency: {store: redis, window: 1h, lease: 5s, most_bytes: 1048576}, cache: {store: redis, most_bytes: 2097152}}\n"
        + profile("{ttl: 90s}")
    )
    told = configuration.gateway.idempotency
    assert (told.store, told.window_seconds, told.lease_seconds, told.most_bytes) == ("redis", 3600.0, 5.0, 1 << 20)
    assert (configuration.gateway.cache.store, configuration.gateway.cache.most_bytes) == ("redis", 2 << 20)
    section = configuration.profiles["single"].cache
    assert section is not None
    assert section.ttl_seconds == 90.0


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("gateway: {grace: 11s}", True),
        ("gateway: {cache: {store: redis}}", True),
        ("limiter: {longest_lease: 1m}", True),
        ("telemetry: {endpoint: '127.0.0.1:4317'}", True),
        ("models: {smollm2: {name: another}}", False),
        ("models: {new: {provider: local, name: x}}", False),
        ("profiles: {single: {members: [{model: smollm2, temperature: 0.3}]}}", False),
        ("providers: {local: {base_url: 'http://127.0.0.1:50061/v1'}}", False),
    ],
)
def test_what_answers_depend_on_has_a_digest_of_its_own(load: Load, text: str, same: bool) -> None:
    """It is another one where providers, models or profiles are, and only there."""
    before = answering_digest(load())
    assert len(before) == 32
    assert (answering_digest(load(text)) == before) is same


def test_a_secret_is_not_in_the_digest(load: Load) -> None:
    """A key that was replaced asks the same models."""
    text = "providers: {p: {kind: openai, base_url: 'http://x', api_key: {env: KEY}}}"
    assert answering_digest(load(text, {"KEY": "one"})) == answering_digest(load(text, {"KEY": "two"}))
