"""A real Jaeger of the tests' own, on free loopback ports, with the configuration that `make jaeger` runs and its spans in memory.

    with Jaeger(tool("jaeger")) as jaeger:
        ...                                     # services export to jaeger.endpoint
        spans = await jaeger.trace(trace_id, lambda spans: len(spans) == 3)

One serves many tests: each has a trace id of its own.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from scripts.tools import ROOT
from scripts.trace_tree import JaegerError, StoredSpan, ask, spans_of, tree
from tests.support.redis_server import _DIES_WITH_PARENT, _free_port

CONFIGURATION = ROOT / "tools" / "jaeger.yaml"
PORTS = ("JAEGER_OTLP_GRPC_PORT", "JAEGER_OTLP_HTTP_PORT", "JAEGER_QUERY_HTTP_PORT", "JAEGER_QUERY_GRPC_PORT")
SECONDS_TO_START = 40.0
SECONDS_TO_WAIT = 20.0


class JaegerFailed(Exception):
    """Jaeger does not start; the text has the end of its log."""


class Jaeger:
    """A Jaeger process; a context manager that starts it, waits until its API answers, and ends it."""

    def __init__(self, executable: str) -> None:
        self.executable = executable
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="jaeger-", ignore_cleanup_errors=True)

    @property
    def endpoint(self) -> str:
        """Where it takes spans, as the section `telemetry` wants it."""
        return f"http://127.0.0.1:{self._ports['JAEGER_OTLP_GRPC_PORT']}"

    @property
    def address(self) -> str:
        """HOST:PORT of its query API."""
        return f"127.0.0.1:{self._ports['JAEGER_QUERY_HTTP_PORT']}"

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = Path(self._folder.name) / "log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        """Start it on free ports; raises JaegerFailed."""
        try:
            for attempts_left in (4, 3, 2, 1, 0):
                self._ports = {name: _free_port() for name in PORTS}
                try:
                    self.start()
                except JaegerFailed:
                    # Somebody may have taken a port in between; whatever else it is will come again.
                    if not attempts_left or "in use" not in self.log:
                        raise
                else:
                    return self
        except BaseException:
            self.__exit__()
            raise
        raise AssertionError("never reached")

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it on the ports it has and wait until its API answers; raises JaegerFailed."""
        environment = {**os.environ, **{name: str(port) for name, port in self._ports.items()}}
        with (Path(self._folder.name) / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*(sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, str(os.getpid())), self.executable, "--config", str(CONFIGURATION)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + SECONDS_TO_START
        try:
            while not self._answers():
                if self._process.poll() is not None:
                    raise JaegerFailed(f"{self.executable} ended with {self._process.returncode}: {self.log[-2000:]}")
                if time.monotonic() > deadline:
                    raise JaegerFailed(f"{self.executable} does not answer: {self.log[-2000:]}")
                time.sleep(0.05)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once; nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def trace(self, trace_id: str, reached: Callable[[Sequence[StoredSpan]], bool]) -> list[StoredSpan]:
        """Wait until the spans of a trace satisfy a condition, `SECONDS_TO_WAIT` at most; return them. It fails with the trace's tree."""
        deadline = time.monotonic() + SECONDS_TO_WAIT
        while True:
            spans = await asyncio.to_thread(spans_of, self.address, trace_id)
            if reached(spans):
                return spans
            if time.monotonic() > deadline:
                raise AssertionError(f"Jaeger has only this of the trace {trace_id}:\n" + "\n".join(tree(spans)))
            await asyncio.sleep(0.05)

    def _answers(self) -> bool:
        try:
            ask(self.address, "/api/services")
        except JaegerError:
            return False
        # One that has ended since, because a port was taken, is not what answered.
        return self._process is not None and self._process.poll() is None
