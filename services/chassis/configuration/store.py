"""The section `limiter.store`: where permits are kept, and what happens while it is down."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from services.chassis.configuration.durations import CallSeconds
from services.chassis.configuration.models import Share
from services.chassis.configuration.secret_references import SecretReference, SecretUnavailable
from services.chassis.configuration.section import Name, Section, redis_url
from services.chassis.configuration.surroundings import Surroundings

DownPolicy = Literal["deny", "local_share", "allow"]
"""What stands in for a store, or a limiter, that is down: nothing, a share of the limits kept in the process, or no limit at all."""


class StoreDownSection(Section):
    """What holds while the store is down, for each kind of limit."""

    rates: DownPolicy = "local_share"
    """Requests and tokens per minute."""
    concurrency: DownPolicy = "local_share"
    budgets: DownPolicy = "deny"
    share: Share = 0.5
    """The part of each limit that all replicas together still grant; each of them has its part of that."""


class StoreSection(Section):
    """Where the limiter keeps its permits."""

    kind: Literal["memory", "redis"] = "memory"
    """"memory" lives and dies with one limiter process; "redis" is shared by all of them (Redis 6.2 or later, or Valkey; the extra "redis" is needed)."""
    url: Annotated[str, AfterValidator(redis_url)] = "redis://127.0.0.1:6379/0"
    """redis:// or rediss:// (TLS); never with a password in it."""
    username: str | None = None
    password_reference: SecretReference | None = Field(default=None, alias="password")
    """Where the password is; None for a server that wants none."""
    pool: Name = "ensemble"
    """Limiters with the same pool on the same server decide as one; different pools know nothing of each other."""
    timeout_seconds: CallSeconds = Field(default=0.1, alias="timeout")
    """Longest time for one decision; a store that takes longer counts as down."""
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many limiter processes there are; each one's local share is counted by it."""
    down: StoreDownSection = Field(default_factory=StoreDownSection)

    _password: SecretStr | None = PrivateAttr(default=None)

    @property
    def password(self) -> SecretStr | None:
        """The password itself; None where none is wanted."""
        return self._password

    @model_validator(mode="after")
    def _fetch(self, info: Any) -> "StoreSection":
        if self.password_reference is not None and isinstance(info.context, Surroundings):
            try:
                self._password = self.password_reference.resolve(info.context.environ, info.context.folder)
            except SecretUnavailable as error:
                raise PydanticCustomError("several", "several problems", {"problems": {("password",): str(error)}}) from None
        return self
