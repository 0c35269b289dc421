"""The errors a caller may see.

    EnsembleError
    |-- InvalidInput          a field of the request is wrong
    |-- Unauthenticated       no credentials, or bad ones
    |-- NotAllowed            good credentials that do not cover this
    |-- UnknownCaller         a service that is not among those that may call
    |-- NotFound              an unknown profile, model or strategy
    |-- QuotaExhausted        the caller's own limit or budget
    |-- Overloaded            this server sheds load
    |-- NoQuorum              fewer candidates than needed
    |-- InvalidAnswer         an answer that is not what was asked for
    |-- DeadlineSpent         nothing to show in time
    |-- DeadlineTooShort      less time than any run like this one took lately
    |-- DependencyUnavailable another service cannot be reached
    |-- Unsupported           a part of the contract that this version does not serve
    |-- Bug                   something unexpected, of which the caller is told an id
    `-- RemoteError           another service's refusal, passed on as it came

They are plain data, raised where they are known; `services.chassis.error_table` alone knows what becomes of each on the wire.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.chassis.api_keys import without_keys


class EnsembleError(Exception):
    """Any error that is meant for the caller; its text holds nothing secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """What is wrong with one field."""

    field: str
    """The field's path in the request, for example "members[2].temperature"."""
    description: str
    """What is wrong, in words that do not repeat the value."""


class InvalidInput(EnsembleError):
    """One or more fields of the request are wrong; nothing was begun."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = tuple(violations)


class Unauthenticated(EnsembleError):
    """The caller gave no credentials, or bad ones."""


class NotAllowed(EnsembleError):
    """The caller's credentials do not cover what was asked."""

    def __init__(self, description: str, *, kind: str | None = None) -> None:
        super().__init__(description)
        self.kind = kind
        """What may not be used, for example "profile"; never which one, and never whether it exists."""


class UnknownCaller(EnsembleError):
    """The certificate that was shown is good, but has none of the names that may call this service."""

    def __init__(self) -> None:
        super().__init__("the certificate that was shown has none of the names that may call this service (tls.callers)")


class NotFound(EnsembleError):
    """Something that was named does not exist."""

    def __init__(self, kind: str, name: str, known: Sequence[str] = ()) -> None:
        hint = f"; known are {', '.join(sorted(known))}" if known else ""
        super().__init__(f"there is no {kind} of that name{hint}")
        self.kind = kind
        # It is told to callers and shown on terminals, and a key may have been pasted where the name belongs.
        self.name = without_keys(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaViolation:
    """One limit of the caller's own that refused."""

    subject: str
    """The limit's name, for example "tenant/team-a/requests_per_minute"."""
    description: str
    """The limit in plain words, with its value."""


class QuotaExhausted(EnsembleError):
    """The caller's own quota or budget is spent."""

    def __init__(
        self,
        subject: str,
        description: str,
        retry_after_seconds: float | None = None,
        *,
        others: Sequence[QuotaViolation] = (),
        cost_micro_usd: int | None = None,
    ) -> None:
        violations = (QuotaViolation(subject=subject, description=description), *others)
        super().__init__("; ".join(violation.description for violation in violations))
        self.subject = subject
        self.violations = violations
        """All limits that refused, each once; the first is that of the subject."""
        self.retry_after_seconds = retry_after_seconds
        """None where waiting is useless."""
        self.cost_micro_usd = cost_micro_usd
        """What the run has cost all the same; None where it has cost nothing."""


class Overloaded(EnsembleError):
    """This server has more to do than it can."""

    def __init__(self, description: str, retry_after_seconds: float | None = None, *, for_want_of_time: bool = False) -> None:
        super().__init__(description)
        self.retry_after_seconds = retry_after_seconds
        self.for_want_of_time = for_want_of_time
        """Whether one with a later deadline would not have been refused."""


class NoQuorum(EnsembleError):
    """Fewer candidates than the quorum succeeded."""

    def __init__(
        self,
        *,
        needed: int,
        succeeded: int,
        outcomes: Mapping[str, str],
        retryable: bool,
        retry_after_seconds: float | None = None,
        cost_micro_usd: int | None = None,
    ) -> None:
        listed = ", ".join(f"{candidate}: {outcome}" for candidate, outcome in outcomes.items())
        super().__init__(f"{succeeded} of {needed} needed candidates succeeded ({listed})")
        self.needed = needed
        self.succeeded = succeeded
        self.outcomes = dict(outcomes)
        """How each call ended: candidate id to the outcome's name, followed where there is one by a colon and the reason word."""
        self.retryable = retryable
        """Whether the same request may succeed later."""
        self.retry_after_seconds = retry_after_seconds
        self.cost_micro_usd = cost_micro_usd
        """What the run has cost all the same; None where nobody knows."""


class InvalidAnswer(EnsembleError):
    """The answer does not satisfy the schema that was asked for, also after a repair."""

    def __init__(self, problem: str, cost_micro_usd: int) -> None:
        super().__init__(f"the answer does not satisfy the schema that was asked for, also after a repair: {problem}")
        self.problem = problem
        """What is wrong with it, in words that hold nothing of it."""
        self.cost_micro_usd = cost_micro_usd
        """What the run has cost all the same."""


class DeadlineSpent(EnsembleError):
    """Time ran out with nothing to show."""

    def __init__(self, stage: str, cost_micro_usd: int | None = None) -> None:
        super().__init__(f"the deadline passed during {stage}")
        self.stage = stage
        self.cost_micro_usd = cost_micro_usd
        """What the run has cost all the same; None where nobody knows."""


class DeadlineTooShort(EnsembleError):
    """Less time is left than any recent run like this one took; nothing was begun."""

    def __init__(self, profile: str, *, recent_seconds: float, left_seconds: float) -> None:
        super().__init__(f"{left_seconds:.3f} s are left, and no recent run of the profile took less than {recent_seconds:.3f} s")
        self.profile = profile
        self.recent_seconds = recent_seconds
        """What the fastest of the recent runs took."""
        self.left_seconds = left_seconds


class DependencyUnavailable(EnsembleError):
    """Another service cannot be reached."""

    def __init__(self, service: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"the {service} cannot be reached")
        self.service = service
        self.retry_after_seconds = retry_after_seconds


class Unsupported(EnsembleError):
    """A part of the contract that this version does not serve yet."""

    def __init__(self, rpc: str) -> None:
        super().__init__(f"{rpc} is not served by this version")
        self.rpc = rpc


class Bug(EnsembleError):
    """Something unexpected; whoever sees it logs type and place under the id, and nothing else of it leaves."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"internal error; request {request_id}")
        self.request_id = request_id


class RemoteError(EnsembleError):
    """Another service refused with an error that is meant for the caller; passed on as it came."""

    def __init__(self, *, code: str, message: str, details: bytes) -> None:
        super().__init__(message)
        self.code = code
        """Name of the gRPC status code, for example "UNAVAILABLE"."""
        self.message = message
        self.details = details
        """A serialized google.rpc.Status."""
