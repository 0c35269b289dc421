"""What the fuzzer makes of a process's memory."""

import random

from bench.fuzz.memory import growth


def _samples(requests: int, *, per_request_bytes: float, warm_up_mb: float = 0.0) -> list[tuple[int, float]]:
    noise = random.Random(1)
    steps = [requests * step // 100 for step in range(1, 101)]
    return [(made, 80 + min(1.0, 5 * made / requests) * warm_up_mb + made * per_request_bytes / 1e6 + noise.uniform(-5, 5)) for made in steps]


def test_a_leak_is_told_from_noise() -> None:
    """In a long run a hundred bytes a request are found, five megabytes of noise are not, nor is what the warm-up takes."""
    leaking, steady = growth(_samples(200_000, per_request_bytes=150)), growth(_samples(200_000, per_request_bytes=0, warm_up_mb=60))
    assert leaking is not None
    assert steady is not None
    assert not leaking.bounded
    assert 12 < leaking.per_100k_mb < 18
    assert steady.bounded


def test_a_short_run_forgives_what_it_cannot_tell() -> None:
    """The same slope over few requests is little memory; much memory is found there too."""
    short, greedy = growth(_samples(2000, per_request_bytes=200)), growth(_samples(2000, per_request_bytes=100_000))
    assert short is not None
    assert greedy is not None
    assert short.bounded
    assert not greedy.bounded


def test_too_little_says_nothing() -> None:
    """Without samples, or with a few, there is no line."""
    assert growth([]) is None
    assert growth([(made, 80.0) for made in range(5)]) is None
    assert growth([(10, 80.0)] * 20) is None
