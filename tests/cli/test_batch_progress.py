"""What is seen of a batch while it runs."""

import io

from rich.console import Console

from services.cli.batch_outcome import Outcome, Standing
from services.cli.batch_progress import BatchProgress
from services.cli.batch_tally import Tally
from services.cli.exit_codes import ExitCode

ANSWERED = Outcome(standing=Standing.ANSWERED, cost_micro_usd=1500)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _shown(*, terminal: bool) -> str:
    clock, written = _Clock(), io.StringIO()
    tally = Tally(total=10, skipped=2)
    console = Console(file=written, force_terminal=terminal, width=200, _environ={"TERM": "xterm"})
    with BatchProgress(tally, console, clock=clock) as progress:
        for _ in range(4):
            clock.now += 2.0
            tally.add(ANSWERED)
            progress.show()
        tally.add(Outcome(standing=Standing.RETRY))
    return written.getvalue()


def test_elsewhere_a_line_comes_every_few_seconds_and_at_the_end() -> None:
    """With what was done, what failed, the cost and the rate."""
    assert _shown(terminal=False).splitlines() == [
        "5 of 10 answered, 2 of them before, $0.004500, 30.0 a minute",
        "6 of 10 answered, 2 of them before, 1 failed (1 may be answered by another run), $0.006000, 37.5 a minute",
    ]


def test_nothing_is_told_twice() -> None:
    """A line that says all is the last."""
    clock, written, tally = _Clock(), io.StringIO(), Tally(total=1)
    with BatchProgress(tally, Console(file=written), clock=clock) as progress:
        clock.now = 6.0
        tally.add(ANSWERED)
        progress.show()
    assert written.getvalue() == "1 of 1 answered, $0.001500, 10.0 a minute\n"


def test_on_a_terminal_a_bar_says_the_same() -> None:
    """With how many have ended."""
    shown = _shown(terminal=True)
    assert " 2/10" in shown
    assert " 7/10\x1b[0m 6 of 10 answered, 2 of them before, 1 failed (1 may be answered by another run), $0.006000, 37.5 a minute" in shown


def test_a_rate_has_the_unit_that_suits_it() -> None:
    """Many a second, or few a minute."""
    assert Tally(total=9, answered=9, seconds=3.0).words() == "9 of 9 answered, $0.000000, 3.0 a second"
    assert Tally(total=9, answered=1, failed=1, to_retry=1, seconds=90.0).words().endswith("$0.000000, 2.0 a minute")


def test_without_a_console_only_the_time_is_kept() -> None:
    """For the summary of a script."""
    clock, tally = _Clock(), Tally(total=1)
    with BatchProgress(tally, None, clock=clock) as progress:
        clock.now = 3.0
        progress.show()
        assert tally.seconds == 3.0
        clock.now = 4.5
    assert tally.as_json() == {"total": 1, "answered": 0, "failed": 0, "skipped": 0, "cost_micro_usd": 0, "seconds": 4.5}


def test_the_exit_code_is_that_of_the_worst() -> None:
    """What failed for good outweighs what may yet be answered, whenever it failed."""
    assert Tally(total=1, answered=1).exit_code is ExitCode.OK
    assert Tally(total=1, to_retry=1).exit_code is ExitCode.UNAVAILABLE
    assert Tally(total=2, to_retry=1, failed=1).exit_code is ExitCode.FAILED
    assert Tally(total=2, to_retry=1, failed_before=1).exit_code is ExitCode.FAILED
