"""RefinerService on the wire."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from ensemble.v1 import refiner_service_pb2, refiner_service_pb2_grpc, run_event_pb2
from services.chassis.event_stream import Put, stream_events
from services.chassis.server_deadline import deadline_of
from services.models.refinement import Refiner
from services.models.wire.refinements import refined_to_proto, refinement_from_proto

DEFAULT_DEADLINE_SECONDS = 60.0
DEADLINE_CAP_SECONDS = 3600.0

Context = grpc.aio.ServicerContext[Any, Any]


class RefinerServicer(refiner_service_pb2_grpc.RefinerServiceServicer):
    """Translates; the refiner decides."""

    def __init__(self, refiner: Refiner) -> None:
        self._refiner = refiner

    async def Refine(self, request: refiner_service_pb2.RefineRequest, context: Context) -> refiner_service_pb2.RefineResponse:
        """Refine and return the answer."""
        refinement = refinement_from_proto(request)
        deadline = deadline_of(context, default_seconds=DEFAULT_DEADLINE_SECONDS, cap_seconds=DEADLINE_CAP_SECONDS)
        return refined_to_proto(await self._refiner.refine(refinement, deadline))

    async def StreamRefine(self, request: refiner_service_pb2.StreamRefineRequest, context: Context) -> AsyncIterator[refiner_service_pb2.StreamRefineResponse]:
        """Refine and stream the answer as it grows."""
        refinement = refinement_from_proto(request.refinement)
        deadline = deadline_of(context, default_seconds=DEFAULT_DEADLINE_SECONDS, cap_seconds=DEADLINE_CAP_SECONDS)

        async def work(put: Put[refiner_service_pb2.StreamRefineResponse]) -> refiner_service_pb2.StreamRefineResponse:
            def listen(text: str, restart: bool) -> None:
                put(refiner_service_pb2.StreamRefineResponse(answer_delta=run_event_pb2.AnswerDelta(text=text, restart=restart)))

            refined = await self._refiner.refine(refinement, deadline, listen)
            return refiner_service_pb2.StreamRefineResponse(finished=refined_to_proto(refined))

        async with aclosing(stream_events(work)) as events:
            async for event in events:
                yield event
