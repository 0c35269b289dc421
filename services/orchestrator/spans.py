"""The orchestrator's own spans: the workflow and its panel."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.trace import SpanKind, Status, StatusCode

from services.chassis import _semconv as semconv
from services.chassis.errors import EnsembleError
from services.chassis.telemetry import Telemetry
from services.models.completion import Completion

Finish = Callable[[Sequence[Completion]], None]


@contextmanager
def workflow_span(telemetry: Telemetry, strategy: str) -> Iterator[None]:
    """Span one run; without telemetry the caller's trace context just stays current."""
    if not telemetry.enabled:
        yield
        return
    attributes = {semconv.GEN_AI_OPERATION_NAME: "invoke_workflow", semconv.GEN_AI_WORKFLOW_NAME: f"ensemble.{strategy}"}
    with telemetry.tracer.start_as_current_span(
        f"invoke_workflow ensemble.{strategy}", kind=SpanKind.INTERNAL, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except BaseException as error:
            # The type says enough; a text could hold what must not be recorded.
            span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
            if isinstance(error, EnsembleError) or not isinstance(error, Exception):
                span.set_status(Status(StatusCode.ERROR))
            raise


@contextmanager
def panel_span(telemetry: Telemetry, *, size: int, quorum: int) -> Iterator[Finish]:
    """Span the panel's calls; the function it gives records how they ended."""
    if not telemetry.enabled:
        yield lambda _: None
        return
    attributes = {semconv.ENSEMBLE_PANEL_SIZE: size, semconv.ENSEMBLE_PANEL_QUORUM: quorum}
    with telemetry.tracer.start_as_current_span(
        "ensemble.panel", kind=SpanKind.INTERNAL, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:

        def finish(completions: Sequence[Completion]) -> None:
            succeeded = sum(completion.ok for completion in completions)
            span.set_attribute(semconv.ENSEMBLE_PANEL_SUCCEEDED, succeeded)
            span.set_attribute(semconv.ENSEMBLE_OUTCOME, "quorum" if succeeded >= quorum else "no_quorum")

        try:
            yield finish
        except BaseException as error:
            span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
            span.set_attribute(semconv.ENSEMBLE_OUTCOME, "cancelled")
            span.set_status(Status(StatusCode.ERROR))
            raise
