"""The memory store against a naive oracle: the same rules in lists and fractions, compared step by step over random histories.

The breaker has tests of its own; here calls end in ways that it does not count, so that limits and leases are seen alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, invariant, multiple, rule

from services.limiter.ledger import Ledger
from services.limiter.limits import Limits, ModelLimits, PermitRules
from services.models.permits import AcquireRequest, CallResult, Denial, DenialReason, Permit, PermitOutcome, PermitSpec, Settlement

LIMITS = {
    "a": ModelLimits(requests_per_minute=30, request_burst=4, tokens_per_minute=600, concurrency=3),
    "b": ModelLimits(requests_per_minute=60, request_burst=2, concurrency=2),
    "c": ModelLimits(tokens_per_minute=120, concurrency=1),
}
RULES = PermitRules(longest_lease_seconds=30, late_report_grace_seconds=10, idempotency_window_seconds=60)
NEUTRAL = [CallResult.REJECTED, CallResult.CANCELLED]
MINUTE = 60


class OracleBucket:
    """A bucket as one would explain it: a level that grows with time up to the capacity."""

    def __init__(self, rate: int, capacity: int) -> None:
        self.rate, self.capacity, self.level, self.full_since_charge = rate, capacity, Fraction(capacity), 0

    def pass_time(self, seconds: Fraction) -> None:
        """Refill."""
        was_full = self.level >= self.capacity
        self.level = min(Fraction(self.capacity), self.level + seconds * self.rate / MINUTE)
        if self.level >= self.capacity and not was_full:
            self.full_since_charge += 1


@dataclass
class OraclePermit:
    """A permit in the oracle's book."""

    model: str
    tokens: int
    ends: Fraction
    epochs: dict[str, int]
    status: str = "held"
    forgotten: Fraction | None = None


class Oracle:
    """The rules, naively."""

    def __init__(self) -> None:
        self.now = Fraction(0)
        self.buckets = {
            (model, kind): OracleBucket(rate, capacity)
            for model, limits in LIMITS.items()
            for kind, rate, capacity in (
                ("requests", limits.requests_per_minute, limits.request_capacity),
                ("tokens", limits.tokens_per_minute, limits.tokens_per_minute),
            )
            if rate is not None and capacity is not None
        }
        self.permits: dict[str, OraclePermit] = {}

    def pass_time(self, seconds: Fraction) -> None:
        """Let time pass: refill, end leases, forget."""
        self.now += seconds
        for bucket in self.buckets.values():
            bucket.pass_time(seconds)
        for permit in self.permits.values():
            if permit.status == "held" and permit.ends <= self.now:
                permit.status, permit.forgotten = "expired", permit.ends + Fraction(RULES.late_report_grace_seconds)
        self.permits = {key: permit for key, permit in self.permits.items() if permit.forgotten is None or permit.forgotten > self.now}

    def in_flight(self, model: str) -> int:
        """Count the held permits."""
        return sum(permit.model == model and permit.status == "held" for permit in self.permits.values())

    def refusals(self, model: str, tokens: int) -> set[DenialReason]:
        """Return every reason to deny."""
        needs = {"requests": 1, "tokens": tokens}
        bucket = self.buckets.get((model, "tokens"))
        if bucket is not None and tokens > bucket.capacity:
            return {DenialReason.TOO_LARGE}
        names = {"requests": DenialReason.REQUESTS, "tokens": DenialReason.TOKENS}
        short = {names[kind] for kind, need in needs.items() if (found := self.buckets.get((model, kind))) is not None and found.level < need}
        return short | ({DenialReason.CONCURRENCY} if self.in_flight(model) >= LIMITS[model].concurrency else set())

    def take(self, permit_id: str, model: str, tokens: int, lease: Fraction) -> None:
        """Grant."""
        epochs = {}
        for kind, need in (("requests", 1), ("tokens", tokens)):
            if (bucket := self.buckets.get((model, kind))) is not None:
                bucket.level -= need
                epochs[kind] = bucket.full_since_charge
        self.permits[permit_id] = OraclePermit(model, tokens, self.now + min(lease, Fraction(RULES.longest_lease_seconds)), epochs)

    def give(self, permit: OraclePermit, kind: str, units: int) -> None:
        """Refund, unless the bucket has been full since."""
        bucket = self.buckets.get((permit.model, kind))
        if bucket is not None and permit.epochs[kind] == bucket.full_since_charge:
            bucket.level = min(Fraction(bucket.capacity), bucket.level + units)

    def report(self, permit_id: str, result: CallResult, used: int) -> Settlement:
        """Settle."""
        permit = self.permits.get(permit_id)
        if permit is None:
            return Settlement.UNKNOWN
        if permit.status in {"settled", "released"}:
            return Settlement.DUPLICATE
        late = permit.status == "expired"
        bucket = self.buckets.get((permit.model, "tokens"))
        if bucket is not None and used > permit.tokens:
            bucket.level -= used - permit.tokens
        elif not late and result is not CallResult.CANCELLED:
            self.give(permit, "tokens", permit.tokens - used)
        permit.status, permit.forgotten = "settled", self.now + Fraction(RULES.idempotency_window_seconds)
        return Settlement.LATE if late else Settlement.SETTLED

    def release(self, permit_id: str) -> Settlement:
        """Give back."""
        permit = self.permits.get(permit_id)
        if permit is None:
            return Settlement.UNKNOWN
        if permit.status != "held":
            return Settlement.LATE if permit.status == "expired" else Settlement.DUPLICATE
        self.give(permit, "requests", 1)
        self.give(permit, "tokens", permit.tokens)
        permit.status, permit.forgotten = "released", self.now + Fraction(RULES.idempotency_window_seconds)
        return Settlement.SETTLED


specs = st.builds(PermitSpec, model=st.sampled_from(sorted(LIMITS)), input_tokens=st.integers(0, 150), max_output_tokens=st.integers(0, 50))
# Quarters of a second are exact as floats, so that both clocks agree to the last bit; no refill of the rates above is ever cut between two of them.
quarters = st.integers(0, 120).map(lambda number: number / 4)


class StoreAgainstOracle(RuleBasedStateMachine):
    """Random histories of both."""

    permits: Bundle[str] = Bundle("permits")
    requests: Bundle[AcquireRequest] = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        numbers = count()
        self.names = count()
        self.oracle = Oracle()
        self.admitted: dict[str, tuple[str, float]] = {}
        self.granted = 0
        self.store = Ledger(Limits(models=LIMITS, rules=RULES), clock=lambda: self.now, uniform=lambda low, _: low, new_id=lambda: f"p{next(numbers)}")

    @rule(target=permits, batch=st.lists(specs, min_size=1, max_size=4), least=st.integers(0, 4), lease=st.integers(1, 40))
    def acquire(self, batch: list[PermitSpec], least: int, lease: int) -> MultipleResults[str]:
        """The same decisions; below the least nothing is taken (I7); a repeat returns the same permits (I6)."""
        least = min(least, len(batch))
        before = self.store.state()
        request = AcquireRequest(request_id=f"r{next(self.names)}", specs=tuple(batch), min_granted=least, lease_seconds=float(lease))
        decisions = self.store.acquire(request).decisions
        expected: list[set[DenialReason]] = []
        saved = {key: (bucket.level, bucket.full_since_charge) for key, bucket in self.oracle.buckets.items()}
        taken = []
        for position, spec in enumerate(batch):
            tokens = spec.input_tokens + spec.max_output_tokens
            refusals = self.oracle.refusals(spec.model, tokens)
            expected.append(refusals)
            if not refusals:
                taken.append(f"draft-{position}")
                self.oracle.take(taken[-1], spec.model, tokens, Fraction(lease))
        enough = len(taken) >= least
        granted = []
        for position, (decision, refusals) in enumerate(zip(decisions, expected, strict=True)):
            draft = self.oracle.permits.pop(f"draft-{position}", None)
            if refusals:
                assert isinstance(decision, Denial)
                assert decision.reason in refusals
                assert (decision.retry_after_seconds is None) == (decision.reason is DenialReason.TOO_LARGE)
            elif enough:
                assert isinstance(decision, Permit)
                assert draft is not None
                self.oracle.permits[decision.permit_id] = draft
                granted.append(decision.permit_id)
            else:
                assert isinstance(decision, Denial)
                assert decision.reason is DenialReason.MIN_NOT_MET
        if not enough:
            for key, (level, epoch) in saved.items():
                self.oracle.buckets[key].level, self.oracle.buckets[key].full_since_charge = level, epoch
        elif len(granted) == len(batch):
            after = self.store.state()
            again = self.store.acquire(request).decisions
            assert [decision.permit_id for decision in again if isinstance(decision, Permit)] == granted
            assert self.store.state() == after, "I6"
        if not granted:
            assert self.store.state() == before, "I7"
        self.granted += len(granted)
        self.admitted |= {permit: (self.oracle.permits[permit].model, self.now) for permit in granted}
        return multiple(*granted)

    @rule(permit=permits, result=st.sampled_from(NEUTRAL), used=st.integers(0, 300))
    def report(self, permit: str, result: CallResult, used: int) -> None:
        """The same settlement, also of repeats and late ones."""
        outcome = PermitOutcome(permit_id=permit, result=result, input_tokens=used, output_tokens=0)
        assert self.store.report([outcome]) == (self.oracle.report(permit, result, used),)
        self._i6_again(lambda: self.store.report([outcome])[0])

    @rule(permit=permits)
    def release(self, permit: str) -> None:
        """The same settlement."""
        settlement = self.oracle.release(permit)
        assert self.store.release([permit]) == (settlement,)
        if settlement is Settlement.SETTLED:
            # It was never made.
            del self.admitted[permit]
        self._i6_again(lambda: self.store.release([permit])[0])

    @rule(permit=permits, lease=st.integers(1, 40))
    def renew(self, permit: str, lease: int) -> None:
        """Only what is held is renewed."""
        (renewal,) = self.store.renew([permit], float(lease))
        held = self.oracle.permits.get(permit)
        assert (renewal.lease_seconds is not None) == (held is not None and held.status == "held")
        if held is not None and held.status == "held":
            held.ends = self.oracle.now + min(Fraction(lease), Fraction(RULES.longest_lease_seconds))

    @rule(seconds=quarters)
    def wait(self, seconds: float) -> None:
        """Time passes for both; holders that say nothing lose their permits."""
        # In steps, so that the oracle sees each lease end at its time.
        self.now += seconds
        for _ in range(round(seconds * 4)):
            self.oracle.pass_time(Fraction(1, 4))

    def _i6_again(self, repeat: Callable[[], Settlement]) -> None:
        """I6: what is said twice has no effect, and is known as a repeat."""
        after = self.store.state()
        assert repeat() is not Settlement.SETTLED
        assert self.store.state() == after

    @invariant()
    def i1_in_flight_is_within_the_limit(self) -> None:
        """I1: what is under way is what the oracle holds, and never more than the limit."""
        for state in self.store.state().models:
            assert state.in_flight == self.oracle.in_flight(state.model) <= LIMITS[state.model].concurrency

    @invariant()
    def i2_requests_are_within_burst_and_rate(self) -> None:
        """I2: in every interval that ends now no more requests were admitted than the burst and the rate allow; released ones were not made."""
        for model, limits in LIMITS.items():
            if limits.requests_per_minute is not None:
                times = sorted((at for admitted, at in self.admitted.values() if admitted == model), reverse=True)
                for number, begin in enumerate(times, 1):
                    assert number <= limits.request_capacity + Fraction(limits.requests_per_minute * (self.now - begin)) / MINUTE

    @invariant()
    def i5_nothing_is_lost(self) -> None:
        """I5: what was granted is held, settled, released, expired, or forgotten; each permit is in the state that the oracle has it in."""
        self.store.state()
        known = {permit: record.status.name.lower() for permit, record in self.store._records.items()}
        assert known == {permit: book.status for permit, book in self.oracle.permits.items()}
        assert len(known) <= self.granted

    @invariant()
    def i3_levels_are_those_of_the_oracle(self) -> None:
        """I3: no requests and no tokens come from nowhere, and none are lost."""
        for state in self.store.state().models:
            for level in state.limits:
                if level.name not in {"concurrency", "retries"}:
                    bucket = self.oracle.buckets[state.model, level.name.partition("_")[0]]
                    assert level.remaining == bucket.level.numerator // bucket.level.denominator

    def teardown(self) -> None:
        """I5: when all has ended and the windows have passed, the store is as good as new."""
        self.now += 10_000
        fresh = Ledger(Limits(models=LIMITS, rules=RULES), clock=lambda: self.now)
        assert self.store.state() == fresh.state()
        assert self.store.remembered == 0


StoreAgainstOracle.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestStoreAgainstOracle = StoreAgainstOracle.TestCase
