"""Telemetry on and off."""

import asyncio
import logging
import subprocess
import sys

import pytest

from services.chassis.configuration import load_configuration
from services.chassis.telemetry import LONGEST_SHUTDOWN_SECONDS, Telemetry, TelemetrySettings, start_telemetry
from tests.support.otlp_receiver import otlp_receiver


def test_settings_come_from_the_configuration() -> None:
    """The section `telemetry`, as it stands."""
    configuration = load_configuration(environ={}, overrides={"telemetry": {"endpoint": "http://127.0.0.1:4317", "capture_content": True}})
    assert TelemetrySettings.from_configuration(configuration) == TelemetrySettings(endpoint="http://127.0.0.1:4317", capture_content=True)


async def test_without_an_endpoint_it_is_off() -> None:
    """Nothing is recorded, and ending it does nothing."""
    telemetry = start_telemetry("gateway", TelemetrySettings())
    assert (telemetry.enabled, telemetry.capture_content) == (False, False)
    assert not telemetry.tracer.start_span("x").is_recording()
    telemetry.meter.create_counter("x").add(1)
    await telemetry.shutdown()
    telemetry.flush()


def test_off_costs_no_import() -> None:
    """Neither the SDK nor an exporter is imported by a service whose telemetry is off."""
    script = (
        "import sys\n"
        "from services.chassis.telemetry import TelemetrySettings, start_telemetry\n"
        "import services.chassis.server, services.chassis.channel\n"
        "start_telemetry('x', TelemetrySettings())\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'opentelemetry.proto'))])"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


async def test_services_in_one_process_are_told_apart() -> None:
    """Each has providers of its own: what it records bears its name, and its end is not the other's."""
    async with otlp_receiver() as receiver:
        settings = TelemetrySettings(endpoint=receiver.endpoint, capture_content=True)
        first, second = start_telemetry("gateway", settings), start_telemetry("limiter", settings)
        assert first.enabled
        assert first.capture_content
        first.tracer.start_span("from the first").end()
        first.meter.create_histogram("told.by.the.first").record(1.0)
        await first.shutdown()
        second.tracer.start_span("from the second").end()
        await second.shutdown()
        assert {(span.service, span.name) for span in receiver.spans} == {("ensemble-gateway", "from the first"), ("ensemble-limiter", "from the second")}
        assert {(point.service, point.name) for point in receiver.histograms} == {("ensemble-gateway", "told.by.the.first")}


async def test_spans_are_exported_while_the_service_runs() -> None:
    """Not only at the end."""
    async with otlp_receiver() as receiver:
        telemetry = start_telemetry("gateway", TelemetrySettings(endpoint=receiver.endpoint))
        telemetry.tracer.start_span("early").end()
        assert [span.name for span in await receiver.wait_for(lambda spans: len(spans) == 1)] == ["early"]
        await telemetry.shutdown()


async def test_a_receiver_for_traces_alone_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """One that takes no metrics still gets the spans; the log has one line about it, not one with every export."""
    async with otlp_receiver(metrics=False) as receiver:
        for _ in range(2):
            telemetry = start_telemetry("gateway", TelemetrySettings(endpoint=receiver.endpoint))
            telemetry.tracer.start_span("x").end()
            telemetry.meter.create_histogram("y").record(1.0)
            await telemetry.shutdown()
        assert len(receiver.spans) == 2
    assert [record.levelno for record in caplog.records if "UNIMPLEMENTED" in record.getMessage()] == [logging.WARNING]


async def test_a_receiver_that_is_gone_does_not_hold_the_end_up() -> None:
    """Spans that cannot be delivered are given up within the longest time for an end, and the log says so; nothing keeps the process alive."""
    async with otlp_receiver() as receiver:
        endpoint = receiver.endpoint
    # In a process of its own: what is left of the exporter goes on in the background for a while.
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _GONE, endpoint], check=True, capture_output=True, text=True, timeout=60)
    assert "UNAVAILABLE" in ended.stderr
    # An exporter left to itself takes 20 s for so many spans.
    assert float(ended.stdout) < LONGEST_SHUTDOWN_SECONDS + 5


_GONE = """
import asyncio, sys, time
from services.chassis.telemetry import TelemetrySettings, start_telemetry

telemetry = start_telemetry("gateway", TelemetrySettings(endpoint=sys.argv[1]))
for _ in range(2000):
    telemetry.tracer.start_span("x").end()
started = time.monotonic()
asyncio.run(telemetry.shutdown())
print(time.monotonic() - started)
"""


async def test_the_end_does_not_block_the_event_loop() -> None:
    """Whoever else runs in the process goes on while spans are exported for the last time."""
    ended = asyncio.Event()
    went_on: list[bool] = []

    def flush() -> None:
        asyncio.run_coroutine_threadsafe(_set(ended), loop).result(10)
        went_on.append(True)

    loop = asyncio.get_running_loop()
    off = Telemetry.off()
    telemetry = Telemetry(tracer=off.tracer, meter=off.meter, enabled=True, capture_content=False, flush=flush)
    await telemetry.shutdown()
    assert (ended.is_set(), went_on) == (True, [True])


async def _set(event: asyncio.Event) -> None:
    event.set()
