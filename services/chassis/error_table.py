"""The one table: what becomes of each domain error on the wire, and what a caller is told to do about it.

A row is all there is to an error: its code, its reason word, its metadata, its further details, and the words of docs/errors.md, which `make docs` writes from
this table. To add an error, write its class (`services.chassis.errors`), its row here, an example of it in tests/support/error_examples.py, and `make docs`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import grpc

from services.chassis.error_details import BAD_REQUEST, LEFT_OUT, QUOTA_FAILURE, RESOURCE_INFO, RETRY_INFO, Detail, left_out
from services.chassis.errors import (
    Bug,
    DeadlineSpent,
    DeadlineTooShort,
    DependencyUnavailable,
    EnsembleError,
    InvalidAnswer,
    InvalidInput,
    NoQuorum,
    NotAllowed,
    NotFound,
    Overloaded,
    QuotaExhausted,
    Unauthenticated,
    UnknownCaller,
    Unsupported,
)

Code = grpc.StatusCode
UNKNOWN_CALLER = "UNKNOWN_CALLER"
"""The reason word of the one refusal that is between services, and not passed on to whoever called the first of them."""
EACH = "ID"
"""How a key of metadata ends that stands for several, one for each entry of its value."""


class Repeat(StrEnum):
    """Whether the same request may be sent again; what stands before the colon is said at a glance."""

    USELESS = "no: the same request fails again"
    """Until the request, the credentials or the configuration are others."""
    LATER = "yes, later: after the `retry_delay` of RetryInfo, without one with a backoff of your own, from 1 s doubling to 30 s, with jitter"
    IF_TOLD = "yes, where RetryInfo says when: without one waiting changes nothing"
    ONCE = "yes, once more and at once: it may go otherwise"
    WITH_TIME = "yes, with a longer deadline"


class Spent(StrEnum):
    """What the failed request has cost, and so what a repeat of it does."""

    NOTHING = "Nothing was begun and nothing is billed, so a repeat is safe."
    MAYBE = "Models may have been called and billed. A repeat is safe, since nothing is kept of a failed request, but it calls and bills them anew."


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of ErrorInfo.metadata."""

    meaning: str
    always: bool = True
    """Whether each error of the row has it."""
    value: Callable[[Any], object] | None = None
    """Takes the value from the error; by default it is the attribute of the key's name. None leaves the key out."""


def _any(_: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one kind of error becomes."""

    # Each row reads the attributes of its own kind of error alone, so their argument is not typed here.
    kind: type[EnsembleError]
    code: grpc.StatusCode
    reason: str
    """The reason word; what stands in braces is an attribute of the error, in capitals."""
    situation: str
    """When it happens, in one or more sentences."""
    advice: str
    """What the caller should do, likewise."""
    repeat: Repeat
    spent: Spent = Spent.NOTHING
    metadata: Mapping[str, Key] = field(default_factory=dict)
    details: tuple[Detail, ...] = ()
    """Beyond ErrorInfo, which comes with every error."""
    applies: Callable[[Any], bool] = _any
    """Whether an error of this kind belongs here, where a kind has several rows."""

    def reason_of(self, error: EnsembleError) -> str:
        """Return an error's reason word."""
        return self.reason.format_map({name: str(value).upper() for name, value in vars(error).items()})

    def metadata_of(self, error: EnsembleError) -> dict[str, str]:
        """Return an error's metadata in the order of the keys, however long."""
        told: dict[str, str] = {}
        for name, key in self.metadata.items():
            value = getattr(error, name) if key.value is None else key.value(error)
            if isinstance(value, Mapping):
                told |= {f"{name.removesuffix(EACH)}{each}": str(one) for each, one in value.items()}
            elif value is not None:
                told[name] = str(value)
        return told


def row_of(error: EnsembleError) -> Row:
    """Return the row of an error, or of what it refines. Raises `LookupError` where there is none."""
    for kind in type(error).__mro__:
        for row in TABLE:
            if row.kind is kind and row.applies(error):
                return row
    raise LookupError(type(error).__name__)


_COST = Key(meaning="what the models that were called have cost all the same, in micro-USD", always=False)
_QUORUM = {
    "needed": Key(meaning="how many good candidates were needed"),
    "succeeded": Key(meaning="how many there were"),
    "cost_micro_usd": _COST,
    f"candidate.{EACH}": Key(
        meaning="how the call for the candidate of that id ended: the name of the outcome, and after a colon, where there is one, the reason word of receipts; "
        "the last ones are left out where they do not fit",
        always=False,
        value=lambda error: error.outcomes,
    ),
}

TABLE: tuple[Row, ...] = (
    Row(
        kind=InvalidInput,
        code=Code.INVALID_ARGUMENT,
        reason="INVALID_INPUT",
        situation="A field of the request is wrong, fields contradict each other, the request as a whole is larger than the gateway takes, or its bytes do not "
        'make the message (the last two name the field "request").',
        advice="Correct the fields that are named; their limits stand in the comments of the protos.",
        repeat=Repeat.USELESS,
        metadata={LEFT_OUT: Key(meaning="how many further violations did not fit", always=False, value=left_out)},
        details=(BAD_REQUEST,),
    ),
    Row(
        kind=Unauthenticated,
        code=Code.UNAUTHENTICATED,
        reason="UNAUTHENTICATED",
        situation="The call has no credentials, or they are not those of a tenant.",
        advice="Send valid credentials; where they were valid yesterday, ask the operator.",
        repeat=Repeat.USELESS,
    ),
    Row(
        kind=NotAllowed,
        code=Code.PERMISSION_DENIED,
        reason="NOT_ALLOWED",
        situation="The credentials are good, but do not cover what was asked: a profile or a model that the tenant may not use. Whether it exists is not told.",
        advice="Take a profile that ListProfiles and models that ListModels show, or ask the operator.",
        repeat=Repeat.USELESS,
        metadata={"kind": Key(meaning='what may not be used, "profile" or "model"', always=False)},
    ),
    Row(
        kind=UnknownCaller,
        code=Code.PERMISSION_DENIED,
        reason=UNKNOWN_CALLER,
        situation="Orchestrator, limiter or refiner was called with a certificate that has none of the names in tls.callers.",
        advice="Have the operator add one of its names, or call with another certificate.",
        repeat=Repeat.USELESS,
    ),
    Row(
        kind=NotFound,
        code=Code.NOT_FOUND,
        reason="NOT_FOUND",
        situation="A profile, model or strategy that the request names does not exist.",
        advice="Correct the name; the message lists those that are known.",
        repeat=Repeat.USELESS,
        metadata={"kind": Key(meaning='what does not exist, for example "profile", "model" or "strategy"')},
        details=(RESOURCE_INFO,),
    ),
    Row(
        kind=QuotaExhausted,
        code=Code.RESOURCE_EXHAUSTED,
        reason="QUOTA_EXHAUSTED",
        situation="The tenant's own requests or tokens a minute, calls at once or budget do not allow the request; but for them it could have been answered.",
        advice="Wait as long as told, ask for less (fewer members, a smaller max_output_tokens, a cheaper profile), or have the operator raise the limit. "
        "Without RetryInfo the request needs more than the limit ever allows.",
        repeat=Repeat.IF_TOLD,
        spent=Spent.MAYBE,
        metadata={"subject": Key(meaning="name of the limit that refused; of several, the first"), "cost_micro_usd": _COST},
        details=(QUOTA_FAILURE, RETRY_INFO),
    ),
    Row(
        kind=Overloaded,
        code=Code.UNAVAILABLE,
        reason="OVERLOADED",
        situation="The server has more to do than it can, and took nothing on.",
        advice="Wait, then ask again; send less at once where it keeps happening.",
        repeat=Repeat.LATER,
        details=(RETRY_INFO,),
    ),
    Row(
        kind=NoQuorum,
        code=Code.UNAVAILABLE,
        reason="NO_QUORUM",
        situation="Fewer candidates than the quorum succeeded, and enough of the others failed in a way that time can heal: a limit was reached, a breaker is "
        "open, a provider failed or was slow.",
        advice="Wait, then ask again.",
        repeat=Repeat.LATER,
        spent=Spent.MAYBE,
        metadata=_QUORUM,
        details=(RETRY_INFO,),
        applies=lambda error: error.retryable,
    ),
    Row(
        kind=NoQuorum,
        code=Code.FAILED_PRECONDITION,
        reason="NO_QUORUM",
        situation="Fewer candidates than the quorum succeeded, and too many of the others failed in a way that time does not heal: a provider refused the "
        "request or its credentials, an answer was withheld or empty, max_cost_micro_usd did not suffice.",
        advice="See by the candidates' outcomes what to change: the request, the panel, the quorum, max_cost_micro_usd; PROVIDER_AUTH is the operator's.",
        repeat=Repeat.USELESS,
        spent=Spent.MAYBE,
        metadata=_QUORUM,
        applies=lambda error: not error.retryable,
    ),
    Row(
        kind=InvalidAnswer,
        code=Code.FAILED_PRECONDITION,
        reason="ANSWER_INVALID",
        situation="The answer does not satisfy response_schema, also after a repair.",
        advice="Ask once more, for models answer differently each time; where it keeps happening take a simpler schema or a stronger model.",
        repeat=Repeat.ONCE,
        spent=Spent.MAYBE,
        metadata={
            "problem": Key(meaning="where the answer differs from the schema, in words that hold nothing of the answer"),
            "cost_micro_usd": Key(meaning=_COST.meaning),
        },
    ),
    Row(
        kind=DeadlineSpent,
        code=Code.DEADLINE_EXCEEDED,
        reason="DEADLINE_SPENT",
        situation="The deadline passed, and there is nothing to show: no candidate arrived, or another service did not answer in time.",
        advice="Allow more time, or take a profile of faster models.",
        repeat=Repeat.WITH_TIME,
        spent=Spent.MAYBE,
        metadata={"stage": Key(meaning='what the time ran out in, for example "the panel" or "the limiter"'), "cost_micro_usd": _COST},
    ),
    Row(
        kind=DeadlineTooShort,
        code=Code.DEADLINE_EXCEEDED,
        reason="DEADLINE_TOO_SHORT",
        situation="Less time is left than any recent run of the profile took, so the request was refused at once rather than billed and thrown away.",
        advice="Allow more time, or take a profile of faster models; skip_deadline_check runs it all the same.",
        repeat=Repeat.WITH_TIME,
        metadata={
            "profile": Key(meaning="the profile"),
            "recent_seconds": Key(meaning="what the fastest of its recent runs took", value=lambda error: f"{error.recent_seconds:.3f}"),
            "left_seconds": Key(meaning="what was left of the deadline", value=lambda error: f"{error.left_seconds:.3f}"),
        },
    ),
    Row(
        kind=DependencyUnavailable,
        code=Code.UNAVAILABLE,
        reason="{service}_UNAVAILABLE",
        situation="Another service that the request needs cannot be reached; the reason word begins with its name, for example LIMITER_UNAVAILABLE or "
        "ORCHESTRATOR_UNAVAILABLE.",
        advice="Wait, then ask again; where it lasts, tell the operator.",
        repeat=Repeat.LATER,
        spent=Spent.MAYBE,
        metadata={"service": Key(meaning='the service, for example "limiter"')},
        details=(RETRY_INFO,),
    ),
    Row(
        kind=Unsupported,
        code=Code.UNIMPLEMENTED,
        reason="UNSUPPORTED",
        situation="The method is part of the contract, but this version does not serve it.",
        advice="Ask the operator for a version that does, or do without.",
        repeat=Repeat.USELESS,
        metadata={"rpc": Key(meaning="name of the method")},
    ),
    Row(
        kind=Bug,
        code=Code.INTERNAL,
        reason="INTERNAL",
        situation="A bug. The message is a fixed text with an id, under which the server's log has the place.",
        advice="Tell the operator the id.",
        repeat=Repeat.ONCE,
        spent=Spent.MAYBE,
        metadata={"request_id": Key(meaning="the id in the server's log")},
    ),
)
