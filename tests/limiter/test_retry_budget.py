"""The retry budget: retries and hedges draw on what first attempts and time allow, so that trouble does not multiply itself."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.limiter.limits import ModelLimits
from services.models.permits import AttemptKind, DenialReason, PermitSpec
from tests.support.driven_ledger import DrivenLedger

FIRST = PermitSpec(model="m")
RETRY = PermitSpec(model="m", attempt_kind=AttemptKind.RETRY)
HEDGE = PermitSpec(model="m", attempt_kind=AttemptKind.HEDGE)


def _driven(share: float = 0.2, floor: int = 4) -> DrivenLedger:
    return DrivenLedger({"m": ModelLimits(concurrency=1000, retry_share=share, retries_per_minute=floor), "n": ModelLimits(concurrency=1)})


def test_a_quiet_model_has_some() -> None:
    """The floor may be used at once, by retries and hedges alike; then one more each fifteen seconds."""
    driven = _driven()
    assert driven.reasons(RETRY, HEDGE, RETRY, HEDGE, RETRY) == ["granted"] * 4 + ["RETRY_BUDGET"]
    denial = driven.denial(HEDGE)
    assert (denial.reason, denial.limit, denial.limit_value, denial.remaining, denial.retry_after_seconds) == (
        DenialReason.RETRY_BUDGET,
        "model/m/retries",
        4,
        0,
        15,
    )
    driven.now += 15 - 1e-6
    assert driven.reasons(RETRY) == ["RETRY_BUDGET"]
    driven.now += 1e-6
    assert driven.reasons(RETRY, RETRY) == ["granted", "RETRY_BUDGET"]


def test_first_attempts_are_never_refused_for_it() -> None:
    """They allow a fifth of a retry each: five allow one, four do not."""
    driven = _driven()
    driven.ask(*[RETRY] * 4)
    assert driven.reasons(*[FIRST] * 4, RETRY) == ["granted"] * 4 + ["RETRY_BUDGET"]
    assert driven.reasons(FIRST, RETRY) == ["granted", "RETRY_BUDGET"]
    # What a batch earns it has from its commit on, not while it is decided.
    assert driven.reasons(RETRY, RETRY) == ["granted", "RETRY_BUDGET"]


def test_no_more_than_the_floor_is_ever_saved() -> None:
    """A thousand good calls do not buy two hundred retries at once."""
    driven = _driven()
    for _ in range(10):
        driven.ask(*[FIRST] * 50)
    assert driven.reasons(*[RETRY] * 5) == ["granted"] * 4 + ["RETRY_BUDGET"]


def test_i7_what_is_denied_or_undone_neither_earns_nor_costs() -> None:
    """Dry runs, batches below their least, and retries that failed at another limit leave the level where it was."""
    driven = _driven()
    driven.ask(*[RETRY] * 3)
    driven.grant("n")
    before = driven.ledger.state()
    assert driven.reasons(RETRY, *[FIRST] * 9, dry_run=True) == ["granted"] * 10
    assert driven.reasons(RETRY, *[FIRST] * 9, "n", min_granted=11)[-1] == "CONCURRENCY"
    assert driven.reasons(PermitSpec(model="n", attempt_kind=AttemptKind.RETRY)) == ["CONCURRENCY"]
    assert driven.ledger.state() == before


def test_a_released_retry_is_given_back() -> None:
    """It was never made."""
    driven = _driven()
    permits = [driven.grant(RETRY) for _ in range(4)]
    assert driven.left("retries") == 0
    driven.release(permits[0])
    assert driven.left("retries") == 1
    driven.report(permits[1])
    assert driven.left("retries") == 1


def test_i6_a_repeated_request_earns_and_costs_once() -> None:
    """Asked twice in the same name."""
    driven = _driven()
    driven.ask(RETRY, RETRY, FIRST, request_id="same")
    left = driven.left("retries")
    driven.ask(RETRY, RETRY, FIRST, request_id="same")
    assert driven.left("retries") == left == 2


def test_the_state_tells_it() -> None:
    """As a level like the others."""
    driven = _driven()
    driven.ask(RETRY)
    level = next(level for level in driven.model().limits if level.name == "retries")
    assert (level.limit, level.remaining, level.effective) == (4, 3, 4)


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 20), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_retries_stay_below_floor_and_share(share: float, floor: int, history: list[tuple[bool, int]]) -> None:
    """Over any history there are at most the floor, what time allows, and the share of the first attempts."""
    driven = _driven(share, floor)
    begun, retries, firsts = driven.now, 0, 0
    for retry, seconds in history:
        driven.now += seconds
        granted = driven.reasons(RETRY if retry else FIRST) == ["granted"]
        retries += retry and granted
        firsts += not retry
        assert retries <= floor + floor * (driven.now - begun) / 60 + firsts * share + 1e-4
