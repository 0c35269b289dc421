"""An outage of a receiver is told once, with its end, and not with every batch."""

import logging
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from services.chassis.otlp import EXPORTER_LOGGER, OUTAGES, QUEUE_LOGGER, Outages, SpanExporter
from tests.support.otlp_receiver import otlp_receiver

FAILED = "Failed to export %s to %s, error code: %s, error details: %s"
RETRIED = "Transient error %s encountered while exporting %s to %s, retrying in %.2fs. Error details: %s"


@pytest.fixture
def outages() -> Outages:
    """Return one that knows of nothing yet."""
    return Outages()


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Hear everything, with what stands between the exporters and the log."""
    OUTAGES.stand_before(EXPORTER_LOGGER, QUEUE_LOGGER)
    with caplog.at_level(logging.INFO):
        yield caplog


def _failed(signal: str, endpoint: str, code: grpc.StatusCode) -> logging.LogRecord:
    return logging.makeLogRecord({"levelno": logging.ERROR, "msg": FAILED, "args": (signal, endpoint, code, "")})


def test_the_first_failed_batch_is_told_and_the_end_of_the_outage(outages: Outages, caplog: pytest.LogCaptureFixture) -> None:
    """For each receiver on its own; the exporters' own words about it are left out, retries and full queues too."""
    caplog.set_level(logging.INFO)
    down, full = grpc.StatusCode.UNAVAILABLE, logging.makeLogRecord({"levelno": logging.WARNING, "msg": "Queue full, dropping %s.", "args": ("Span",)})
    assert outages.filter(full)
    for signal, endpoint in (("traces", "a:1"), ("metrics", "a:1"), ("traces", "b:2"), ("traces", "a:1")):
        assert not outages.filter(_failed(signal, endpoint, down))
    assert not outages.filter(logging.makeLogRecord({"levelno": logging.WARNING, "msg": RETRIED, "args": (down, "traces", "a:1", 1.0, "")}))
    assert not outages.filter(full)
    assert outages.filter(logging.makeLogRecord({"levelno": logging.ERROR, "msg": "Exception while exporting %s.", "args": ("Span",)}))
    outages.over("metrics", "a:1")
    outages.over("traces", "a:1")
    outages.over("traces", "a:1")
    assert not outages.filter(_failed("traces", "a:1", down))
    words = "telemetry does not reach"
    assert [(record.levelno, record.getMessage().partition(";")[0]) for record in caplog.records] == [
        (logging.WARNING, f"{words} a:1: UNAVAILABLE"),
        (logging.WARNING, f"{words} b:2: UNAVAILABLE"),
        (logging.INFO, "telemetry reaches a:1 again"),
        (logging.WARNING, f"{words} a:1: UNAVAILABLE"),
    ]


def test_a_receiver_that_does_not_take_one_kind_of_data_is_complained_of_once(outages: Outages, caplog: pytest.LogCaptureFixture) -> None:
    """That is no outage, and other lines are heard."""
    for endpoint in ("a:1", "a:1", "b:2"):
        assert not outages.filter(_failed("metrics", endpoint, grpc.StatusCode.UNIMPLEMENTED))
    assert [record.getMessage() for record in caplog.records] == [f"metrics are not taken by {endpoint}: UNIMPLEMENTED" for endpoint in ("a:1", "b:2")]
    assert outages.filter(logging.makeLogRecord({"levelno": logging.WARNING, "msg": "something else", "args": None}))


def test_a_receiver_for_traces_alone_is_back_when_it_refuses_again(outages: Outages, caplog: pytest.LogCaptureFixture) -> None:
    """Also where it was metrics that noticed the outage: the next one is told too."""
    caplog.set_level(logging.INFO)
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE):
        assert not outages.filter(_failed("metrics", "a:1", code))
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "telemetry does not reach a:1: UNAVAILABLE",
        "telemetry reaches a:1 again",
        "metrics are not taken by a:1: UNIMPLEMENTED",
        "telemetry does not reach a:1: UNAVAILABLE",
    ]


async def test_a_receiver_that_goes_and_comes_back(heard: pytest.LogCaptureFixture) -> None:
    """Many batches at one that is gone: one line; another when it is back."""
    async with otlp_receiver() as receiver:
        endpoint = receiver.endpoint
    exporter = SpanExporter(endpoint=endpoint, insecure=True, timeout=0.3)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(5):
        provider.get_tracer("x").start_span("x").end()
    assert [record.name for record in heard.records] == ["services.chassis.otlp"]
    assert "UNAVAILABLE" in heard.text
    OUTAGES.over("traces", endpoint.removeprefix("http://"))
    assert heard.messages[1:] == [f"telemetry reaches {endpoint.removeprefix('http://')} again"]
    provider.shutdown()
