"""What holds for all tests."""

import os
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code. The parent is Hypothesis's own choice: with CI set, one without chance.
settings.register_profile(
    "ensemble", settings.get_profile("ci" if os.environ.get("CI") else "default"), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ensemble")

# A shell without job control starts what it puts in the background with SIGINT ignored, and every process a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where CI is set: there everything must run."""
    return _run_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a whole module that is skipped."""
    return _run_in_ci((yield))


def _run_in_ci(report: Report) -> Report:
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but with CI set nothing may be: {report.longrepr}"
    return report
