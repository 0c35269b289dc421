"""When a prompt of a batch is asked again, and after how long."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from services.cli.exit_codes import ExitCode
from services.cli.rpc_errors import RpcFailure

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 30.0
_SPREAD = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How much is done for one prompt."""

    attempts: int = 3
    """How often it is asked at most."""
    most_wait_seconds: float = 300.0
    """How long it may wait in all between its attempts."""
    chance: Callable[[], float] = random.random
    """Spreads those that were refused together; from 0 up to 1."""

    def wait_seconds(self, failure: RpcFailure, *, attempts: int, waited_seconds: float) -> float | None:
        """Return how long to wait after so many attempts; None where it is not asked again.

        What spent its whole time is not asked again here, which would cost the same time once more; another run of the batch may.
        """
        if attempts >= self.attempts:
            return None
        if failure.retry_after_seconds is not None:
            # Never before it was told to: that would only be refused again.
            wait = failure.retry_after_seconds * (1 + _SPREAD * self.chance())
        elif failure.exit_code is ExitCode.UNAVAILABLE:
            wait = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2 ** (attempts - 1)) * (1 - _SPREAD * self.chance())
        else:
            return None
        return wait if waited_seconds + wait <= self.most_wait_seconds else None
