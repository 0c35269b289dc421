"""A receiver of spans and metrics that keeps nothing but what it was looking for: 200,000 requests make more spans than fit into memory."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from bench.fuzz.canaries import Canaries, Canary
from bench.fuzz.verdicts import texts

_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": trace_service_pb2.ExportTraceServiceRequest,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": metrics_service_pb2.ExportMetricsServiceRequest,
}


class Receiver:
    """What came, and which canaries were in it."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self.endpoint = ""
        self.received: Counter[str] = Counter()
        """Exports and bytes."""
        self.found: Counter[tuple[str, Canary]] = Counter()
        """Canaries by the place in a span or metric."""

    def take(self, kind: type[Message], data: bytes) -> None:
        """Take one export as it came."""
        self.received["exports"] += 1
        self.received["bytes"] += len(data)
        if not self._canaries.found(data):
            return
        known = sum(self.found.values())
        for place, text in places(kind.FromString(data)):
            for canary in self._canaries.found(text):
                self.found[place, canary] += 1
        if sum(self.found.values()) == known:
            # Somewhere that is no text: found all the same.
            self.found["export", self._canaries.found(data)[0]] += 1


@contextlib.asynccontextmanager
async def receiving(canaries: Canaries) -> AsyncIterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver(canaries)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
    for service, kind in _SERVICES.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": _handler(receiver, kind)}),))
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(1.0)


def places(message: Any) -> Iterator[tuple[str, bytes]]:
    """Yield every text in an export with its place: an attribute by its name, anything else of a span by the field's."""
    for one in _attributes(message):
        yield "attribute's name", one.key.encode()
        for _, text in texts(one.value):
            yield f"span {one.key}", _bytes(text)
    for path, text in texts(message):
        if "KeyValue" not in path:
            yield f"span {path.rpartition('.')[2]}", _bytes(text)


def _attributes(message: Any) -> Iterator[Any]:
    if message.DESCRIPTOR.full_name == "opentelemetry.proto.common.v1.KeyValue":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                yield from _attributes(one)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _handler(receiver: Receiver, kind: type[Message]) -> Any:
    async def export(request: bytes, context: Any) -> bytes:  # noqa: ARG001 - a handler's arguments
        receiver.take(kind, request)
        return b""

    return grpc.unary_unary_rpc_method_handler(export)
