"""The port to the orchestrator.

The gateway does not look into what a run brings: it hands on what comes back. So the port is generic in what it carries. The domain names no type at all, the
composition root fills in the wire's own messages for both ends, and the type checker holds the two together; nothing is converted twice on the way.
"""

from collections.abc import AsyncGenerator
from typing import Protocol, TypeVar

from services.chassis.deadline import Deadline
from services.gateway.order import Order

ResultT_co = TypeVar("ResultT_co", covariant=True)
"""What a run brought."""
EventT_co = TypeVar("EventT_co", covariant=True)
"""What happened in a run."""


class Runs(Protocol[ResultT_co, EventT_co]):
    """The orchestrator, as the gateway sees it."""

    async def run(self, order: Order, deadline: Deadline) -> ResultT_co:
        """Run and return what it brought. Raises any `EnsembleError`; being cancelled cancels the run."""
        ...

    def stream(self, order: Order, deadline: Deadline) -> AsyncGenerator[EventT_co, None]:
        """Run and yield what happens. Raises any `EnsembleError`; closing the generator cancels the run."""
        ...
