"""What a batch has come to, for its progress, its end and its exit code."""

from dataclasses import dataclass

from services.cli.batch_outcome import Outcome, Standing
from services.cli.exit_codes import CommandError, ExitCode


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of one run of a batch."""

    total: int
    skipped: int = 0
    """Answered by an earlier run."""
    failed_before: int = 0
    """Failed for good in an earlier run."""
    answered: int = 0
    failed: int = 0
    """For good, in this run."""
    to_retry: int = 0
    """Failed, and another run may help."""
    cost_micro_usd: int = 0
    """Of this run."""
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.answered += outcome.standing is Standing.ANSWERED
        self.failed += outcome.standing is Standing.FAILED
        self.to_retry += outcome.standing is Standing.RETRY
        self.cost_micro_usd += outcome.cost_micro_usd

    @property
    def all_failed(self) -> int:
        """How many prompts have no answer though they were asked."""
        return self.failed_before + self.failed + self.to_retry

    @property
    def ended(self) -> int:
        """How many prompts have ended, in this run or before."""
        return self.skipped + self.answered + self.all_failed

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        if self.failed_before + self.failed:
            return ExitCode.FAILED
        return ExitCode.UNAVAILABLE if self.to_retry else ExitCode.OK

    def words(self) -> str:
        """Return it for a person."""
        told = [f"{self.answered + self.skipped} of {self.total} answered"]
        told += [f"{self.skipped} of them before"] if self.skipped else []
        told += [f"{self.all_failed} failed" + (f" ({self.to_retry} may be answered by another run)" if self.to_retry else "")] if self.all_failed else []
        told += [f"${self.cost_micro_usd / 1_000_000:.6f}", self._rate()]
        return ", ".join(told)

    def _rate(self) -> str:
        ended = self.answered + self.failed + self.to_retry
        a_second = ended / self.seconds if self.seconds else 0.0
        return f"{a_second:.1f} a second" if a_second >= 1 else f"{a_second * 60:.1f} a minute"

    def as_json(self) -> dict[str, int | float]:
        """Return it for scripts; cost and seconds are this run's."""
        return {
            "total": self.total,
            "answered": self.answered,
            "failed": self.all_failed,
            "skipped": self.skipped,
            "cost_micro_usd": self.cost_micro_usd,
            "seconds": round(self.seconds, 3),
        }


class BatchInterrupted(CommandError):
    """Somebody pressed Ctrl-C; what was answered is kept."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(f"interrupted; {_goes_on(tally)}", ExitCode.INTERRUPTED)
        self._tally = tally

    def as_json(self) -> dict[str, object]:
        """Return how far it came beside the error."""
        return {**super().as_json(), **self._tally.as_json()}


class BatchStopped(CommandError):
    """The gateway cannot be reached or does not know who asks; what was answered is kept."""

    def __init__(self, tally: Tally, reason: CommandError) -> None:
        super().__init__(str(reason), reason.code, violations=reason.violations)
        self._tally = tally
        self._reason = reason

    def lines(self) -> list[str]:
        """Return why, and how far it came."""
        return [*self._reason.lines(), _goes_on(self._tally)]

    def as_json(self) -> dict[str, object]:
        """Return how far it came beside the error."""
        return {**self._reason.as_json(), **self._tally.as_json()}


def _goes_on(tally: Tally) -> str:
    return f"{tally.words()}; the same command goes on from here"
