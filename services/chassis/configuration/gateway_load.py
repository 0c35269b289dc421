"""The section `gateway.load`: how much the gateway takes on at once, and whom it turns away; read once, at the start."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from services.chassis.configuration.durations import CallSeconds
from services.chassis.configuration.models import Count, Share
from services.chassis.configuration.section import Section

Places = Annotated[int, Field(ge=0, le=10_000)]
"""In the queue; none to ten thousand."""
Calls = Annotated[int, Field(ge=1, le=100_000)]


class GatewayLoadSection(Section):
    """What one gateway process takes on at once."""

    concurrency: Count = 256
    """Runs at once. Each costs the gateway little processor time and waits for models for seconds, so this bounds memory and what is asked of models."""
    queue: Places = 256
    """Runs that may wait for one of them to end; 0 refuses at once whatever finds no place."""
    longest_wait_seconds: CallSeconds = Field(default=5.0, alias="longest_wait")
    """The longest a run waits for its place."""
    tenant_share: Share = 0.5
    """The part of the queue that one tenant may fill and, while others wait, the part of the places that it may hold; of `most_calls` too, as far as runs that
    run or wait leave room."""
    deadline_check: bool = True
    """Refuse at once what has less time than any recent run of its profile took."""
    most_calls: Calls | None = None
    """Calls of any kind under way at once, those that wait included; what comes beyond is refused before it is looked at. Health checks do not count. None is
    twice concurrency and queue together."""

    @field_validator("most_calls")
    @classmethod
    def _calls_cover_places(cls, most: int | None, info: ValidationInfo) -> int | None:
        if most is not None and most < info.data.get("concurrency", 0) + info.data.get("queue", 0):
            raise PydanticCustomError("most_calls", "must not be below concurrency and queue together")
        return most
