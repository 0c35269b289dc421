"""Who asks: the tenant behind a call, and what it may use.

Whoever finds out who a caller is (`services.gateway.grpc_authentication`) sets it for the call; gRPC runs each call in a context of its own.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One tenant, as far as a call is concerned."""

    tenant: str = ""
    """The tenant's name; empty where the gateway asks nobody who he is."""
    profiles: frozenset[str] | None = None
    """Profiles that may be used; None for all."""
    models: frozenset[str] | None = None
    """Models that may be called, whoever names them; None for all."""

    def may_use_profile(self, name: str) -> bool:
        """Whether the profile of this name may be used, if there is one."""
        return self.profiles is None or name in self.profiles

    def may_call(self, model: str) -> bool:
        """Whether the model of this name may be called, if there is one."""
        return self.models is None or model in self.models


ANYONE = Caller()
"""The caller of a gateway that asks nobody who he is."""
current_caller: ContextVar[Caller] = ContextVar("current_caller", default=ANYONE)
"""The caller of the call under way."""
