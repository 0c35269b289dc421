"""Two stores, one behaviour: the ledger in memory and the script inside a real redis-server go through the same random histories and say the same at each step.

Everything a store does takes part: rates, concurrency, retries, budgets over the end of a month, breakers with slow calls and probes, provider back-off,
adaptive limits, overrides, metrics only, renewals, late reports, holders that vanish, and limits that change.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule, run_state_machine_as_test

from services.limiter.limits import BreakerRules, Limits, ModelLimits, PermitRules, TenantLimits
from services.models.permits import AttemptKind, CallResult, OverrideMode, PermitSpec
from tests.support.lockstep import Lockstep, Pair
from tests.support.redis_server import RedisServer, redis_server

WALKS, STEPS = 60, 150
RULES = PermitRules(longest_lease_seconds=60, late_report_grace_seconds=20, idempotency_window_seconds=30)
BREAKER = BreakerRules(
    minimum_calls=6, consecutive_failures=4, bucket_seconds=5, buckets=4, open_seconds=2, longest_open_seconds=16, auth_open_seconds=30, slow_call_seconds=5
)
MODELS = {
    "a": ModelLimits(requests_per_minute=30, request_burst=4, tokens_per_minute=900, concurrency=3, retries_per_minute=2, breaker=BREAKER),
    "b": ModelLimits(requests_per_minute=120, concurrency=6, adaptive_concurrency=True, breaker=replace(BREAKER, good_probes=1, slow_rate=0.4)),
    "c": ModelLimits(tokens_per_minute=250, concurrency=2, metrics_only=True, breaker=replace(BREAKER, undecided_leases=1)),
}
TENANTS = {
    "t": TenantLimits(requests_per_minute=60, tokens_per_minute=1_500, concurrency=5, budget_per_day=6_000, budget_per_month=12_000),
    "u": TenantLimits(budget_per_month=2_500),
}
LIMITS = Limits(models=MODELS, tenants=TENANTS, rules=RULES)
OTHERS = [
    LIMITS,
    replace(LIMITS, models={**MODELS, "a": replace(MODELS["a"], requests_per_minute=None, tokens_per_minute=300, concurrency=5, retries_per_minute=4)}),
    replace(LIMITS, models={**MODELS, "b": replace(MODELS["b"], concurrency=2), "c": replace(MODELS["c"], metrics_only=False, tokens_per_minute=500)}),
    replace(LIMITS, tenants={"t": TenantLimits(tokens_per_minute=400, budget_per_day=1_000), "u": TenantLimits(concurrency=1, budget_per_month=800)}),
    replace(LIMITS, tenants={"t": replace(TENANTS["t"], metrics_only=True), "u": TenantLimits(concurrency=1)}),
    replace(LIMITS, models={**MODELS, "a": replace(MODELS["a"], breaker=replace(BREAKER, bucket_seconds=3, minimum_calls=2))}),
]
BEGIN = 1_704_067_080.0
"""Two minutes before the end of a month, and of a year."""

specs = st.builds(
    PermitSpec,
    model=st.sampled_from(sorted(MODELS)),
    input_tokens=st.integers(0, 300),
    max_output_tokens=st.integers(0, 50),
    cost_micro_usd=st.integers(0, 600),
    attempt_kind=st.sampled_from(AttemptKind),
)
maybe_tokens = st.one_of(st.none(), st.integers(0, 500))
maybe_left = st.one_of(st.none(), st.integers(0, 300))


class StoresAgree(RuleBasedStateMachine):
    """Random histories that shrink to the shortest one that shows a difference."""

    server: RedisServer
    runner: asyncio.Runner

    permits: Bundle[Pair] = Bundle("permits")

    @initialize()
    def begin(self) -> None:
        """Start both."""
        self.both = Lockstep(self.server.client(), LIMITS, self.runner.run, begin=BEGIN)

    @rule(
        target=permits,
        batch=st.lists(specs, min_size=1, max_size=4),
        least=st.integers(0, 4),
        lease=st.integers(1, 70),
        tenant=st.sampled_from(["", "t", "t", "u"]),
        dry_run=st.sampled_from([False, False, False, True]),
    )
    def acquire(self, batch: list[PermitSpec], least: int, lease: int, tenant: str, dry_run: bool) -> MultipleResults[Pair]:
        """Ask."""
        asked = self.both.acquire(tuple(batch), tenant=tenant, min_granted=min(least, len(batch)), lease_seconds=float(lease), dry_run=dry_run)
        return multiple(*asked)

    @rule(
        permit=permits,
        result=st.sampled_from(CallResult),
        input_tokens=maybe_tokens,
        output_tokens=maybe_tokens,
        cost_micro_usd=st.one_of(st.none(), st.integers(0, 900)),
        latency_seconds=st.sampled_from([None, 1.0, 5.0, 9.0]),
        retry_after_seconds=st.sampled_from([None, 0.0, 1.5, 500.0]),
        left=maybe_left,
    )
    def report(self, permit: Pair, result: CallResult, left: int | None, **told: Any) -> None:
        """Settle, for the first time or not, in time or not."""
        self.both.report(permit, result, _headers(left), **told)

    @rule(permit=permits)
    def release(self, permit: Pair) -> None:
        """Give back."""
        self.both.release(permit)

    @rule(permit=permits, lease=st.integers(1, 70))
    def renew(self, permit: Pair, lease: int) -> None:
        """Hold longer."""
        self.both.renew(permit, float(lease))

    @rule(seconds=st.one_of(st.integers(0, 12), st.integers(0, 240)).map(lambda quarters: quarters / 4))
    def wait(self, seconds: float) -> None:
        """Let time pass for both."""
        self.both.wait(seconds)

    @rule(model=st.sampled_from(sorted(MODELS)), mode=st.one_of(st.none(), st.sampled_from(OverrideMode)), seconds=st.integers(1, 30))
    def override(self, model: str, mode: OverrideMode | None, seconds: int) -> None:
        """An operator says something."""
        self.both.override(model, mode, float(seconds))

    @rule(limits=st.sampled_from(OTHERS))
    def follow(self, limits: Limits) -> None:
        """The limits change, and change back."""
        self.both.follow(limits)

    @invariant()
    def agree(self) -> None:
        """All that can be seen is the same."""
        self.both.agree()


def _headers(left: int | None) -> dict[str, str]:
    return {} if left is None else {"anthropic-ratelimit-requests-remaining": str(left // 50), "anthropic-ratelimit-tokens-remaining": str(left)}


def _walk(both: Lockstep, chance: random.Random) -> None:
    """Live an ordinary life with all its accidents: most calls are small, and end soon and well; now and then a model falls ill for a while."""
    live: list[Pair] = []
    ill: dict[str, CallResult] = {}
    model_of: dict[Pair, str] = {}
    for _ in range(STEPS):
        step = chance.random()
        if step < 0.35:
            batch = tuple(
                PermitSpec(
                    model=chance.choice("aabbbc"),
                    input_tokens=chance.choice([5, 20, 120, 320]),
                    max_output_tokens=chance.choice([0, 30]),
                    cost_micro_usd=chance.choice([0, 10, 40, 400]),
                    attempt_kind=chance.choice([AttemptKind.FIRST] * 4 + [AttemptKind.RETRY, AttemptKind.HEDGE]),
                )
                for _ in range(chance.choice([1, 1, 2, 4]))
            )
            least = chance.choice([0, 0, len(batch)])
            lease = chance.choice([2.0, 10.0, 30.0, 60.0, 90.0])
            new = both.acquire(batch, tenant=chance.choice(["", "t", "t", "u"]), min_granted=least, lease_seconds=lease, dry_run=chance.random() < 0.1)
            live += new
            # The two ids of a pair say nothing of the model, so whom an illness meets is told by the number.
            model_of |= {pair: "abc"[number % 3] for number, pair in enumerate(new)}
        elif step < 0.7 and live:
            pair = live.pop(-1 if chance.random() < 0.6 else chance.randrange(len(live)))
            result = ill.get(model_of[pair], CallResult.SUCCESS) if chance.random() < 0.8 else chance.choice(list(CallResult))
            both.report(
                pair,
                result,
                _headers(chance.choice([None] * 8 + [0, 60, 200])),
                input_tokens=chance.choice([None, 1, 15, 100, 700]),
                output_tokens=chance.choice([None, 0, 25]),
                cost_micro_usd=chance.choice([None, 0, 8, 60, 500]),
                latency_seconds=chance.choice([None, 1.0, 1.0, 5.0, 9.0]),
                retry_after_seconds=chance.choice([None, None, 0.0, 1.5, 500.0]) if result is CallResult.THROTTLED else None,
            )
            if chance.random() < 0.1:
                live.append(pair)
        elif step < 0.9:
            both.wait(chance.choice([0.0, 0.25, 0.5, 1.0, 1.0, 2.0, 2.0, 3.0, 5.0, 12.0, 60.0]))
        elif step < 0.93 and live:
            both.renew(chance.choice(live), chance.choice([1.0, 20.0, 90.0]))
        elif step < 0.95 and live:
            both.release(live.pop(chance.randrange(len(live))))
        elif step < 0.98:
            ill = {} if ill else {model: chance.choice([CallResult.FAILURE, CallResult.FAILURE, CallResult.TIMEOUT, CallResult.THROTTLED]) for model in "abc"}
        elif step < 0.99:
            both.override(chance.choice("abc"), chance.choice([None, *OverrideMode]), chance.choice([1.0, 8.0]))
        else:
            both.follow(chance.choice(OTHERS))
        # Looking lets time have its effect and forgets what is old, so it must not happen everywhere.
        if chance.random() < 0.6:
            both.agree()


@pytest.fixture(scope="module")
def loop_and_server() -> Iterator[tuple[asyncio.Runner, RedisServer]]:
    """Run one server, in an event loop that ordinary functions can wait in."""
    with asyncio.Runner() as runner:
        context = redis_server()
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


def test_both_stores_do_the_same_in_any_order(loop_and_server: tuple[asyncio.Runner, RedisServer]) -> None:
    """Whatever happens in whatever order, however unlikely."""

    class Here(StoresAgree):
        runner, server = loop_and_server

    run_state_machine_as_test(Here, settings=settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)))


@pytest.mark.parametrize("part", range(4))
def test_both_stores_do_the_same_in_ordinary_lives(loop_and_server: tuple[asyncio.Runner, RedisServer], part: int) -> None:
    """Long histories of what happens most, which wander further than what is drawn evenly."""
    runner, server = loop_and_server
    for seed in range(part, WALKS, 4):
        both = Lockstep(server.client(), LIMITS, runner.run, begin=BEGIN)
        try:
            _walk(both, random.Random(seed))
        except AssertionError as difference:
            raise AssertionError(f"with seed {seed}") from difference
