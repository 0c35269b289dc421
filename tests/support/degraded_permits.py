"""A limiter in memory whose replies say that they are not its best."""

from dataclasses import dataclass, replace

from services.models.local_permits import LocalReply
from services.models.permits import AcquireReply, AcquireRequest
from tests.support.recording_permits import RecordingPermits


@dataclass(slots=True, kw_only=True)
class DegradedPermits(RecordingPermits):
    """Decides as the recording one, in the stead of a limiter or of its store."""

    degraded: bool = True
    local: bool = False
    """Whether the replies were made in this process."""
    only_first: bool = False
    """Whether all is well again after the first reply."""

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide, and say how."""
        first = not self.requests
        # Named, for a slotted dataclass is made anew and leaves a bare super() behind.
        reply = await RecordingPermits.acquire(self, request)
        if self.only_first and not first:
            return reply
        return LocalReply(decisions=reply.decisions, degraded=self.degraded) if self.local else replace(reply, degraded=self.degraded)
