"""The reporter: nothing is lost while the limiter answers, batches gather behind a send, and it gives up with one warning."""

import asyncio
import logging

import pytest
from opentelemetry.context import Context

from services.models.permits import CallResult, PermitOutcome
from services.models.reporter import ATTEMPTS, BATCH_LIMIT, QUEUE_LIMIT, OutcomeReporter
from tests.support.recording_permits import RecordingPermits
from tests.support.virtual_time import run_virtual

HERE = Context()


def _outcome(number: int) -> PermitOutcome:
    return PermitOutcome(permit_id=f"p{number}", result=CallResult.SUCCESS)


def test_reports_behind_a_send_share_the_next_one() -> None:
    """While the first report is under way the others gather; they leave together, at most a batch at a time."""
    permits = RecordingPermits(delay_seconds=1.0)

    async def scenario() -> None:
        reporter = OutcomeReporter(permits)
        reporter.report(_outcome(0), HERE)
        await asyncio.sleep(0.5)
        for number in range(1, BATCH_LIMIT + 3):
            reporter.report(_outcome(number), HERE)
        await reporter.aclose(10)

    run_virtual(scenario())
    assert permits.batches == [1, BATCH_LIMIT, 2]
    assert [outcome.permit_id for outcome in permits.reports] == [f"p{number}" for number in range(BATCH_LIMIT + 3)]


def test_reports_and_releases_do_not_mix() -> None:
    """A release between two reports ends the batch, so the order is kept."""
    permits = RecordingPermits()

    async def scenario() -> None:
        reporter = OutcomeReporter(permits)
        reporter.report(_outcome(1), HERE)
        reporter.release(["r1", "r2"], HERE)
        reporter.report(_outcome(2), HERE)
        await reporter.aclose()

    run_virtual(scenario())
    assert permits.batches == [1, 2, 1]
    assert permits.releases == ["r1", "r2"]


def test_traced_runs_report_apart() -> None:
    """Where each trace shall show its own reports, a batch holds one run's only."""
    permits = RecordingPermits()
    first, second = Context({"run": 1}), Context({"run": 2})

    async def scenario() -> None:
        reporter = OutcomeReporter(permits, batch_per_context=True)
        for number, context in enumerate((first, first, second)):
            reporter.report(_outcome(number), context)
        await reporter.aclose()

    run_virtual(scenario())
    assert permits.batches == [2, 1]


def test_a_limiter_that_comes_back_gets_the_reports() -> None:
    """Reports wait through an outage shorter than the attempts' backoff."""
    permits = RecordingPermits(down=True)

    async def scenario() -> OutcomeReporter:
        reporter = OutcomeReporter(permits)
        reporter.report(_outcome(1), HERE)
        await asyncio.sleep(1.0)
        assert permits.reports == []
        permits.down = False
        await reporter.aclose(30)
        return reporter

    reporter = run_virtual(scenario())
    assert [outcome.permit_id for outcome in permits.reports] == ["p1"]
    assert reporter.lost == 0


def test_a_limiter_that_stays_away_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Reports are given up after the last attempt and counted; the log says so once, not a thousand times."""
    permits = RecordingPermits(down=True)

    async def scenario() -> OutcomeReporter:
        reporter = OutcomeReporter(permits, batch_per_context=True)
        for number in range(5):
            reporter.report(_outcome(number), Context({"run": number}))
        await reporter.aclose(1000)
        return reporter

    with caplog.at_level(logging.WARNING):
        assert run_virtual(scenario()).lost == 5
    assert len(caplog.records) == 1
    assert ATTEMPTS > 1


def test_closing_does_not_wait_longer_than_its_grace() -> None:
    """With the limiter away, closing ends after the grace."""
    permits = RecordingPermits(down=True)

    async def scenario() -> float:
        reporter = OutcomeReporter(permits)
        reporter.report(_outcome(1), HERE)
        started = asyncio.get_running_loop().time()
        await reporter.aclose(0.5)
        return asyncio.get_running_loop().time() - started

    assert run_virtual(scenario()) == pytest.approx(0.5)


def test_a_reports_future_is_done_once_it_was_sent_or_given_up() -> None:
    """Whoever has to wait for a report can, and does not wait for ever."""
    permits = RecordingPermits(delay_seconds=1.0)

    async def scenario() -> None:
        reporter = OutcomeReporter(permits)
        first, second = reporter.report(_outcome(1), HERE), reporter.report(_outcome(2), HERE)
        assert not first.done()
        await asyncio.wait([first, second])
        permits.down = True
        third = reporter.report(_outcome(3), HERE)
        await third
        assert reporter.lost == 1

    run_virtual(scenario())


def test_an_idle_reporter_closes_at_once() -> None:
    """Nothing to send, nothing to wait for."""
    run_virtual(OutcomeReporter(RecordingPermits()).aclose())


def test_the_queue_is_bounded() -> None:
    """Beyond the bound the oldest reports go, and are counted."""
    permits = RecordingPermits()

    async def scenario() -> OutcomeReporter:
        reporter = OutcomeReporter(permits)
        for number in range(QUEUE_LIMIT + 3):
            reporter.report(_outcome(number), HERE)
        await reporter.aclose(1000)
        return reporter

    assert run_virtual(scenario()).lost == 3
    assert len(permits.reports) == QUEUE_LIMIT
    assert permits.reports[0].permit_id == "p3"
