"""The port to what a run brings, for those who keep it and tell it again.

The gateway's layers name no message of the wire; what they must know of one they ask here, in terms of the types that `Runs` carries.
"""

from typing import Protocol, TypeVar

from services.models.plan import RunPlan

ResultT = TypeVar("ResultT")
"""What a run brought."""
EventT = TypeVar("EventT")
"""What happened in a run."""


class Results(Protocol[ResultT, EventT]):
    """Results and events, read and made."""

    def encode(self, result: ResultT) -> bytes:
        """Return the result as bytes."""
        ...

    def decode(self, data: bytes) -> ResultT:
        """Return the result that was encoded. Raises `ValueError` for bytes that are none."""
        ...

    def degraded(self, result: ResultT) -> bool:
        """Whether the answer is less than was asked for."""
        ...

    def as_cached(self, result: ResultT, *, run_id: str, age_seconds: float, latency_seconds: float) -> ResultT:
        """Return the result as the answer to another request, for which nothing was called and nothing paid; its trace is the current one."""
        ...

    def result_in(self, event: EventT) -> ResultT | None:
        """Return the result that the last event of a run holds; None for every other event."""
        ...

    def size(self, event: EventT) -> int:
        """Return about how many bytes an event takes."""
        ...

    def beginning(self, result: ResultT, strategy: str) -> EventT:
        """Return the first event of a run that is over already."""
        ...

    def answer(self, result: ResultT, *, restart: bool) -> EventT:
        """Return the event that tells the whole answer; `restart` takes back what was told of it before."""
        ...

    def ending(self, result: ResultT) -> EventT:
        """Return the last event of a run."""
        ...

    def asked(self, plan: RunPlan) -> bytes:
        """Return what is asked of the models as bytes, without the run's id and its tenant: equal where the same is asked."""
        ...
