"""The limiter with something that stands in for it while it cannot be reached.

    asking --cannot be reached--> away --an answer--> asking
                                   |  each call: local permits, or the error where the policy is deny
                                   `- one call a second still asks the limiter (with deny: each call)

"Cannot be reached" is what gRPC says of a server that is not there, and a limiter that lets the time of one RPC pass: that time is the RPC's own and knows
nothing of the run's deadline. A limiter that answers, be it with an error, is there.

No breaker stands before the limiter: asking it once a second is what a breaker with one probe would do.
"""

import logging
import time
from collections.abc import Callable, Sequence

from services.chassis.errors import DeadlineSpent, DependencyUnavailable, EnsembleError
from services.models.local_permits import LocalPermits
from services.models.permits import AcquireReply, AcquireRequest, PermitOutcome, Permits, Settlement

RETRY_SECONDS = 1.0
"""How long after a failure the limiter is not asked again, where something stands in for it."""

_log = logging.getLogger(__name__)


class FallbackPermits:
    """Satisfies `services.models.permits.Permits`."""

    def __init__(self, permits: Permits, local: LocalPermits | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the limiter and what stands in for it; None denies everything while it is away, and asks it for each call."""
        self._permits = permits
        self._local = local
        self._clock = clock
        self._away = False
        self._asking = False
        self._ask_again_at = 0.0

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch. Raises `DependencyUnavailable` where the limiter cannot be reached and nothing stands in for it; `RemoteError` as it comes."""
        local = self._local
        if local is not None and self._away and (self._asking or self._clock() < self._ask_again_at):
            return local.acquire(request)
        # One call at a time finds out whether it is back; where it hangs, no other waits with it.
        finding_out = self._away
        self._asking = self._asking or finding_out
        try:
            reply = await self._permits.acquire(request)
        except (DependencyUnavailable, DeadlineSpent) as error:
            self._gone()
            if local is not None:
                return local.acquire(request)
            if isinstance(error, DependencyUnavailable):
                raise
            raise DependencyUnavailable("limiter") from error
        except EnsembleError:
            self._back()
            raise
        finally:
            if finding_out:
                self._asking = False
        self._back()
        return reply

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle each permit where it was granted. Raises `DependencyUnavailable` where that is the limiter and it cannot be reached."""
        theirs = [outcome for outcome in outcomes if not self._owns(outcome.permit_id)]
        # First, for if it fails the whole batch comes again.
        settled = iter(await self._permits.report(theirs) if theirs else ())
        return tuple(
            self._local.settle(outcome) if self._local is not None and self._owns(outcome.permit_id) else next(settled, Settlement.UNKNOWN)
            for outcome in outcomes
        )

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give each permit back where it was granted. Raises as `report`."""
        theirs = [permit_id for permit_id in permit_ids if not self._owns(permit_id)]
        settled = iter(await self._permits.release(theirs) if theirs else ())
        return tuple(
            self._local.release(permit_id) if self._local is not None and self._owns(permit_id) else next(settled, Settlement.UNKNOWN)
            for permit_id in permit_ids
        )

    def _owns(self, permit_id: str) -> bool:
        return self._local is not None and self._local.owns(permit_id)

    def _gone(self) -> None:
        self._ask_again_at = self._clock() + RETRY_SECONDS
        if self._away:
            return
        self._away = True
        if self._local is None:
            meanwhile = "every call is refused"
        else:
            meanwhile = "this process grants a share of the limits" if self._local.limited else "every call is let through"
        _log.warning("the limiter cannot be reached; until it is back %s", meanwhile)

    def _back(self) -> None:
        if self._away:
            self._away = False
            _log.info("the limiter can be reached again")
