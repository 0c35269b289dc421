"""The port to the limiter: what of each model can be had now. It is generic in what it carries, for the reason given in `services.gateway.runs`."""

from collections.abc import Mapping
from typing import Protocol, TypeVar

from services.chassis.deadline import Deadline

StateT_co = TypeVar("StateT_co", covariant=True)
"""A model's limits, levels and breaker."""


class Availability(Protocol[StateT_co]):
    """The limiter, as the gateway sees it."""

    async def states(self, deadline: Deadline) -> Mapping[str, StateT_co]:
        """Return the state of every model by its name. Raises `DependencyUnavailable` where the limiter cannot be reached."""
        ...
