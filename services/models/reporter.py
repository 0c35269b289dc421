"""Tells the limiter what became of permits, away from the path of the answer.

A report must outlive the run it belongs to: a cancelled run has no time left for one more call, and its permits must come back all the same. So reports
are queued here and sent by one task. While one batch is under way the next gathers, so that under load many runs share an RPC.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from services.chassis.errors import EnsembleError
from services.models.local_permits import LocalPermits
from services.models.permits import PermitOutcome, Permits

_log = logging.getLogger(__name__)

BATCH_LIMIT = 256
"""Most reports in one RPC; the limiter's own bound."""
QUEUE_LIMIT = 16_384
"""Most reports kept while the limiter is away; beyond it the oldest go, and their leases end by themselves."""
ATTEMPTS = 6
FIRST_BACKOFF_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Entry:
    """A report or, where outcome is None, a release; with the trace context it belongs to."""

    permit_id: str
    outcome: PermitOutcome | None
    context: Context
    sent: "asyncio.Future[None]"


class OutcomeReporter:
    """A queue of reports and releases with one sender."""

    def __init__(self, permits: Permits, *, local: LocalPermits | None = None, batch_per_context: bool = False) -> None:
        """Take the limiter, and what granted permits in its stead; `batch_per_context` keeps traced runs' reports apart, so that each trace shows its own."""
        self._permits = permits
        self._local = local
        self._batch_per_context = batch_per_context
        self._queue: deque[_Entry] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many reports were given up because the limiter stayed away."""
        return self._lost

    def report(self, outcome: PermitOutcome, context: Context) -> "asyncio.Future[None]":
        """Queue a report; the future is done once it was sent, or given up."""
        entry = _Entry(outcome.permit_id, outcome, context, asyncio.get_running_loop().create_future())
        self._put(entry)
        return entry.sent

    def release(self, permit_ids: Sequence[str], context: Context) -> None:
        """Queue the return of permits whose calls were never sent."""
        for permit_id in permit_ids:
            self._put(_Entry(permit_id, None, context, asyncio.get_running_loop().create_future()))

    async def aclose(self, grace_seconds: float = 2.0) -> None:
        """Send what is queued, for at most the grace, then stop."""
        sender = self._sender
        if sender is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await asyncio.wait([sender])
        if not sender.done():
            sender.cancel()
            await asyncio.wait([sender])

    def _put(self, entry: _Entry) -> None:
        if self._local is not None and self._local.owns(entry.permit_id):
            # At once: in the queue it would wait behind those that the limiter, being away, does not take.
            if entry.outcome is None:
                self._local.release(entry.permit_id)
            else:
                self._local.settle(entry.outcome)
            _mark([entry])
            return
        if len(self._queue) == QUEUE_LIMIT:
            self._give_up([self._queue.popleft()])
        self._queue.append(entry)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all(), name="outcome-reporter")

    async def _send_all(self) -> None:
        while self._queue:
            await self._send(self._next_batch())

    def _next_batch(self) -> list[_Entry]:
        """Take what is queued first, of one kind and, where asked for, of one trace."""
        batch = [self._queue.popleft()]
        head = batch[0]
        while self._queue and len(batch) < BATCH_LIMIT:
            entry = self._queue[0]
            if (entry.outcome is None) != (head.outcome is None) or (self._batch_per_context and entry.context is not head.context):
                break
            batch.append(self._queue.popleft())
        return batch

    async def _send(self, batch: list[_Entry]) -> None:
        """Send one batch. Both RPCs are idempotent by permit, so a batch whose reply was lost may be sent again."""
        # The sender is one task for all runs: each batch travels in the trace of its first entry.
        token = otel_context.attach(batch[0].context)
        try:
            for attempt in range(ATTEMPTS):
                try:
                    outcomes = [entry.outcome for entry in batch if entry.outcome is not None]
                    if outcomes:
                        await self._permits.report(outcomes)
                    else:
                        await self._permits.release([entry.permit_id for entry in batch])
                except EnsembleError:
                    if attempt < ATTEMPTS - 1:
                        await asyncio.sleep(FIRST_BACKOFF_SECONDS * 2**attempt)
                else:
                    _mark(batch)
                    return
            self._give_up(batch)
        finally:
            otel_context.detach(token)

    def _give_up(self, entries: list[_Entry]) -> None:
        if not self._lost:
            _log.warning("the limiter cannot be reached; reports are given up and their permits' leases will end by themselves")
        self._lost += len(entries)
        _mark(entries)


def _mark(entries: list[_Entry]) -> None:
    for entry in entries:
        if not entry.sent.done():
            entry.sent.set_result(None)
