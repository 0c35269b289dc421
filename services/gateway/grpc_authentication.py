"""Finds out who calls before anything else is done for a call: sets `services.gateway.caller.current_caller`.

Health and reflection are gRPC's own and are answered without asking. What a call brought to show who it is from is looked at here and goes nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, cast

from services.chassis.handlers import AroundInterceptor, Context
from services.chassis.server_tracing import tell_tenant
from services.gateway.caller import Caller, current_caller

AUTHORIZATION = "authorization"


class Callers(Protocol):
    """Whoever knows who may call."""

    def caller(self, authorizations: Sequence[str | bytes], names: Callable[[], Sequence[str]]) -> Caller:
        """Return who calls. Raises `Unauthenticated`."""
        ...


class Authentication(AroundInterceptor):
    """Lets in whoever the callers know."""

    def __init__(self, callers: Callers) -> None:
        super().__init__()
        self._callers = callers

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - the same for every method
        """Return what asks who makes a call."""
        return _AskedCall(self._callers, context)


class _AskedCall(AbstractAsyncContextManager[None]):
    def __init__(self, callers: Callers, context: Context) -> None:
        self._callers = callers
        self._context = context

    async def __aenter__(self) -> None:
        metadata = self._context.invocation_metadata() or ()
        authorizations = [value for key, value in metadata if key == AUTHORIZATION]
        caller = self._callers.caller(authorizations, lambda: verified_names(self._context))
        # Each call has a context of its own, so nothing is to be put back.
        current_caller.set(caller)
        if caller.tenant:
            tell_tenant(caller.tenant)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Nothing is to be done after a call."""


def verified_names(context: Context) -> list[str]:
    """Return the subject alternative names of the client's certificate; none where the connection is not TLS or the client showed no certificate.

    In gRPC's Python a server either requires a certificate that its own authorities have signed, or asks for none, so whatever stands here is verified.
    """
    # The stubs say otherwise.
    peer = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    if list(peer.get("transport_security_type", ())) != [b"ssl"]:
        return []
    # A name that is not UTF-8 is none that anybody could have configured.
    return [name.decode("utf-8", "replace") for name in peer.get("x509_subject_alternative_name", ())]
