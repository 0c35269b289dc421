"""The span of one attempt at a model, by the GenAI conventions; losers and cancelled attempts have theirs too."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from services.chassis import _semconv as semconv
from services.chassis.telemetry import Telemetry
from services.models.catalogue import ModelEntry
from services.models.chat import ChatResult
from services.models.completion import Attempt, Completion
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind


class ChatSpan(Protocol):
    """What the guard tells of an attempt's end."""

    def finish(self, completion: Completion, result: ChatResult) -> None:
        """Record how the attempt ended."""
        ...


class _NoSpan:
    def finish(self, completion: Completion, result: ChatResult) -> None:
        """Nothing is recorded."""


class _RecordedSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def finish(self, completion: Completion, result: ChatResult) -> None:
        receipt = completion.receipt
        attributes: dict[str, str | int | float | tuple[str, ...]] = {
            semconv.ENSEMBLE_OUTCOME: str(receipt.outcome),
            semconv.GEN_AI_USAGE_INPUT_TOKENS: receipt.usage.input_tokens,
            semconv.GEN_AI_USAGE_OUTPUT_TOKENS: receipt.usage.output_tokens,
        }
        if result.response_id:
            attributes[semconv.GEN_AI_RESPONSE_ID] = result.response_id
        if result.response_model:
            attributes[semconv.GEN_AI_RESPONSE_MODEL] = result.response_model
        if result.finish_reason:
            attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = (result.finish_reason,)
        if receipt.outcome is not Outcome.OK:
            attributes[semconv.ERROR_TYPE] = receipt.reason or str(receipt.outcome)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attributes(attributes)


_NO_SPAN = _NoSpan()


@contextmanager
def chat_span(telemetry: Telemetry, attempt: Attempt, entry: ModelEntry) -> Iterator[ChatSpan]:
    """Span one attempt; its attributes hold parameters and counts, never a prompt or an answer."""
    if not telemetry.enabled:
        yield _NO_SPAN
        return
    planned = attempt.planned
    optional = {
        semconv.GEN_AI_REQUEST_MAX_TOKENS: planned.sampling.max_output_tokens or entry.max_output_tokens,
        semconv.GEN_AI_REQUEST_TEMPERATURE: planned.sampling.temperature,
        semconv.GEN_AI_REQUEST_TOP_P: planned.sampling.top_p,
        semconv.GEN_AI_REQUEST_SEED: planned.sampling.seed,
    }
    attributes: dict[str, str | int | float | bool] = {
        semconv.GEN_AI_OPERATION_NAME: "chat",
        semconv.GEN_AI_PROVIDER_NAME: entry.provider,
        semconv.GEN_AI_REQUEST_MODEL: entry.provider_model,
        semconv.GEN_AI_REQUEST_STREAM: entry.stream,
        semconv.ENSEMBLE_MEMBER: planned.member_id,
        semconv.ENSEMBLE_ATTEMPT: attempt.number,
        semconv.ENSEMBLE_HEDGE: attempt.kind is AttemptKind.HEDGE,
        **{name: value for name, value in optional.items() if value is not None},
    }
    with telemetry.tracer.start_as_current_span(
        f"chat {entry.provider_model}", kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        yield _RecordedSpan(span)
