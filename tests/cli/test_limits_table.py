"""The limiter's state in words."""

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from ensemble.v1 import limiter_service_pb2 as pb
from ensemble.v1 import model_state_pb2 as states
from services.cli.limits_table import model_line, state_view, tenant_line, usd

BUDGET = states.BudgetLevel(
    period="day",
    limit_micro_usd=50_000_000,
    spent_micro_usd=12_500_000,
    reserved_micro_usd=100,
    unreconciled_micro_usd=20_000,
    resets_in=Duration(seconds=11_000),
)


def _drawn(state: pb.GetStateResponse, said: str = "") -> str:
    told = io.StringIO()
    Console(file=told, width=200).print(state_view(state, "host:1", said=said))
    return told.getvalue()


def _cells(drawn: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in drawn.splitlines() if "│" in line]


def test_everything_a_model_tells_is_shown() -> None:
    """A debt is below zero, a lowered limit comes with what holds of it, the breaker with its window, everything that runs down with its time."""
    model = states.ModelState(
        model="careful",
        limits=[
            states.LimitLevel(name="tokens_per_minute", limit=100, remaining=-5, effective=100),
            states.LimitLevel(name="concurrency", limit=8, remaining=1, effective=4),
        ],
        in_flight=3,
        breaker=states.BreakerSnapshot(
            state=states.BREAKER_STATE_OPEN, open_for=Duration(seconds=9), open_count=2, window_calls=12, window_failures=7, window_slow=1
        ),
        provider_backoff=Duration(seconds=4, nanos=200_000_000),
        override=states.OVERRIDE_MODE_METRICS_ONLY,
        override_for=Duration(seconds=599),
        metrics_only=True,
        would_have_denied={"TOKENS": 3, "REQUESTS": 2, "CONCURRENCY": 1, "BREAKER_OPEN": 4},
    )
    assert _cells(_drawn(pb.GetStateResponse(models=[model]))) == [
        ["careful", "3", "tokens_per_minute -5/100", "OPEN, next probe in 9.0 s", "provider asks to wait 4.2 s"],
        ["", "", "concurrency 1/8, effective 4", "window 12 calls, 7 failed, 1 slow", "override METRICS_ONLY for 9m 59s more"],
        ["", "", "", "opened 2 x of late", "measured only, nothing is denied"],
        ["", "", "", "", "would have denied BREAKER_OPEN 4, CONCURRENCY 1, REQUESTS 2, TOKENS 3"],
    ]
    assert model_line(model) == (
        "model careful: 3 in flight; tokens_per_minute -5/100; concurrency 1/8, effective 4; OPEN, next probe in 9.0 s; window 12 calls, 7 failed, 1 slow; "
        "opened 2 x of late; provider asks to wait 4.2 s; override METRICS_ONLY for 9m 59s more; measured only, nothing is denied; "
        "would have denied BREAKER_OPEN 4, CONCURRENCY 1, REQUESTS 2, TOKENS 3"
    )


def test_what_says_nothing_is_left_out() -> None:
    """A quiet model has limits and a closed breaker, and no tenants mean no table of them."""
    quiet = states.ModelState(model="quick", breaker=states.BreakerSnapshot(state=states.BREAKER_STATE_CLOSED))
    assert _cells(_drawn(pb.GetStateResponse(models=[quiet]))) == [["quick", "0", "", "CLOSED", ""], ["", "", "", "window 0 calls, 0 failed, 0 slow", ""]]


@pytest.mark.parametrize(
    ("breaker", "words"),
    [
        (states.BreakerSnapshot(state=states.BREAKER_STATE_HALF_OPEN, probes=1), "HALF_OPEN, 1 probe under way"),
        (states.BreakerSnapshot(state=states.BREAKER_STATE_HALF_OPEN, probes=2), "HALF_OPEN, 2 probes under way"),
        (states.BreakerSnapshot(state=states.BREAKER_STATE_OPEN, open_for=Duration()), "OPEN, the next probe may be tried"),
        (states.BreakerSnapshot(state=9), "number 9"),  # type: ignore[arg-type] # of a later version
    ],
)
def test_a_breaker_says_what_it_lets_through(breaker: states.BreakerSnapshot, words: str) -> None:
    """Probes are counted; an open time that has run out says so; a state of a later version is a number."""
    assert f"; {words}; window" in model_line(states.ModelState(breaker=breaker))


def test_budgets_are_in_dollars() -> None:
    """What was spent, reserved and is only an estimate, of how much, and when it begins anew."""
    tenant = states.TenantState(
        tenant="team-a", in_flight=2, limits=[states.LimitLevel(name="concurrency", limit=4, remaining=2, effective=4)], budgets=[BUDGET]
    )
    words = "day $12.50 of $50.00 spent, $0.0001 reserved, $0.02 unreconciled, resets in 3h 3m"
    assert _cells(_drawn(pb.GetStateResponse(tenants=[tenant]))) == [["team-a", "2", "concurrency 2/4", words]]
    assert tenant_line(tenant) == f"tenant team-a: 2 in flight; concurrency 2/4; {words}"
    certain = states.BudgetLevel(period="month", limit_micro_usd=1)
    assert tenant_line(states.TenantState(tenant="b", budgets=[certain])).endswith("month $0.00 of $0.000001 spent, $0.00 reserved, resets in 0.0 s")


def test_the_headline_says_how_far_the_state_can_be_trusted() -> None:
    """The version always; degraded, learning and the connection only where there is something to say."""
    assert _drawn(pb.GetStateResponse(config_version=7)) == "limiter host:1; configuration version 7\n"
    careful = _drawn(pb.GetStateResponse(degraded=True, learning_for=Duration(seconds=75)), "it is gone")
    assert "degraded: its store is down" in careful
    assert "for 1m 15s more it allows half of each concurrency" in careful
    assert careful.endswith("it is gone\n")


@pytest.mark.parametrize(
    ("state", "said", "yellow"),
    [
        (pb.GetStateResponse(), "", 0),
        (pb.GetStateResponse(degraded=True), "", 1),
        (pb.GetStateResponse(learning_for=Duration(seconds=1)), "", 1),
        (pb.GetStateResponse(degraded=True), "it is gone", 2),
    ],
)
def test_trouble_catches_the_eye(state: pb.GetStateResponse, said: str, yellow: int) -> None:
    """In colour on a terminal, one line for each."""
    screen = io.StringIO()
    Console(file=screen, width=200, force_terminal=True, color_system="standard").print(state_view(state, "host:1", said=said))
    assert screen.getvalue().count("\x1b[33m") == yellow


def test_nothing_a_limiter_says_reaches_the_terminal_as_a_command() -> None:
    """Neither markup nor escape sequences, wherever they stand."""
    evil = "\x1b[31m[b]x"
    state = pb.GetStateResponse(
        models=[states.ModelState(model=evil, limits=[states.LimitLevel(name=evil)], would_have_denied={evil: 1})],
        tenants=[states.TenantState(tenant=evil, budgets=[states.BudgetLevel(period=evil)])],
    )
    drawn = _drawn(state, evil)
    assert "\x1b" not in drawn
    assert drawn.count("\ufffd[31m[b]x") == 6


@pytest.mark.parametrize(("micro", "words"), [(0, "$0.00"), (1, "$0.000001"), (2**53 - 1, "$9007199254.740991"), (-1_230_000, "-$1.23")])
def test_dollars_are_exact(micro: int, words: str) -> None:
    """To the last micro-dollar, and never less than cents."""
    assert usd(micro) == words
