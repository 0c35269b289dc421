"""What the gateway's load is held to."""

from dataclasses import dataclass

from services.chassis.configuration import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRules:
    """How many runs and calls at once, and who may wait; the section `gateway.load` says more of each."""

    concurrency: int
    """Runs at once."""
    queue: int
    """Runs that may wait for a place."""
    longest_wait_seconds: float
    """The longest a run waits."""
    tenant_share: float = 1.0
    """Of the queue, and of the places while others wait, above 0 to 1; holds for named tenants."""
    deadline_check: bool = True
    """Whether runs that cannot be done in time are refused."""
    most_calls: int = 1024
    """Calls of any kind at once."""

    @classmethod
    def from_configuration(cls, configuration: Configuration) -> "LoadRules":
        """Take the section `gateway.load`."""
        section = configuration.gateway.load
        return cls(
            concurrency=section.concurrency,
            queue=section.queue,
            longest_wait_seconds=section.longest_wait_seconds,
            tenant_share=section.tenant_share,
            deadline_check=section.deadline_check,
            most_calls=2 * (section.concurrency + section.queue) if section.most_calls is None else section.most_calls,
        )

    @property
    def tenant_places(self) -> int:
        """How many places one tenant may hold while others wait; at least 1."""
        return max(1, int(self.concurrency * self.tenant_share))

    @property
    def tenant_queue(self) -> int:
        """How many of a tenant's runs may wait; at least 1, where any may."""
        return max(1, int(self.queue * self.tenant_share))

    @property
    def tenant_calls(self) -> int:
        """How many calls of any kind one tenant may have under way: its share, but never fewer than it may have runs that run or wait."""
        return min(self.most_calls, max(self.concurrency + self.tenant_queue, int(self.most_calls * self.tenant_share)))
