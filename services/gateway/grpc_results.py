"""What a run brings, in terms of the wire's own messages."""

from google.protobuf.message import DecodeError

from ensemble.v1 import orchestrator_service_pb2, receipt_pb2, run_event_pb2
from services.chassis.trace_context import current_trace_id
from services.models.plan import RunPlan
from services.models.wire.durations import to_duration
from services.models.wire.plans import plan_to_proto

Result = orchestrator_service_pb2.RunResponse
Event = orchestrator_service_pb2.StreamRunResponse

EVENT_OVERHEAD_BYTES = 560
"""What an event takes in memory beside its bytes, as measured with protobuf 7 for a piece of text; most events are short ones."""


class GrpcResults:
    """Satisfies `services.gateway.results.Results` for what `GrpcRuns` carries."""

    def encode(self, result: Result) -> bytes:
        """Return the message's bytes."""
        return result.SerializeToString(deterministic=True)

    def decode(self, data: bytes) -> Result:
        """Return the message. Raises `ValueError` for bytes that are none."""
        try:
            return Result.FromString(data)
        except DecodeError:
            raise ValueError("not a result") from None

    def degraded(self, result: Result) -> bool:
        """Whether the answer is less than was asked for."""
        return result.degraded

    def as_cached(self, result: Result, *, run_id: str, age_seconds: float, latency_seconds: float) -> Result:
        """Return the result with a receipt of its own: no calls, no stages, nothing used and nothing paid."""
        told = Result()
        told.CopyFrom(result)
        told.run_id = run_id
        told.trace_id = current_trace_id()
        receipt = receipt_pb2.Receipt(
            latency=to_duration(latency_seconds),
            # No model was called, so all of the time was the ensemble's own.
            overhead=to_duration(latency_seconds),
            usage=receipt_pb2.Usage(),
            cost=receipt_pb2.Cost(),
            agreement=result.receipt.agreement if result.receipt.HasField("agreement") else None,
            cached=True,
            cached_age=to_duration(age_seconds),
        )
        told.receipt.CopyFrom(receipt)
        return told

    def result_in(self, event: Event) -> Result | None:
        """Return the whole response of the last event; None for every other event."""
        return event.run_finished if event.HasField("run_finished") else None

    def size(self, event: Event) -> int:
        """Return the bytes of the message, and what it takes beside them."""
        return event.ByteSize() + EVENT_OVERHEAD_BYTES

    def beginning(self, result: Result, strategy: str) -> Event:
        """Return the first event of a run that is over already."""
        candidates = [candidate.candidate_id for candidate in result.candidates]
        return Event(run_started=run_event_pb2.RunStarted(run_id=result.run_id, strategy=strategy, candidate_ids=candidates, trace_id=result.trace_id))

    def answer(self, result: Result, *, restart: bool) -> Event:
        """Return the event that tells the whole answer."""
        return Event(answer_delta=run_event_pb2.AnswerDelta(text=result.answer, restart=restart))

    def ending(self, result: Result) -> Event:
        """Return the last event of a run."""
        return Event(run_finished=result)

    def asked(self, plan: RunPlan) -> bytes:
        """Return the plan's bytes without the run's id and its tenant."""
        message = plan_to_proto(plan)
        message.ClearField("run_id")
        message.ClearField("tenant")
        return message.SerializeToString(deterministic=True)
