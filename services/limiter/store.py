"""The port to where permits are kept; a store decides as well, since a decision and its record are one indivisible step."""

from collections.abc import Sequence
from typing import Protocol

from services.models.permits import AcquireReply, AcquireRequest, ModelState, PermitOutcome, Renewal, Settlement


class Store(Protocol):
    """Keeps permits, and decides. Its methods do not wait: a store that has to ask over a network gets a port of its own kind beside this one."""

    def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch in one indivisible step. Raises `NotFound` or `InvalidInput`."""
        ...

    def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle permits, one settlement for each outcome."""
        ...

    def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend leases, one renewal for each permit."""
        ...

    def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give permits back unused, one settlement for each."""
        ...

    def state(self, models: Sequence[str] = ()) -> tuple[ModelState, ...]:
        """Return the models' state; all by name where none are named. Raises `NotFound`."""
        ...
