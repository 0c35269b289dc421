"""An orchestrator that can run so many at once, each of which takes its time; more wait in the order of their arrival, as they do before a model.

python -m bench.orchestrator_stub SLOTS MEDIAN_SECONDS SIGMA
"""

import asyncio
import random
import sys
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ensemble.v1 import orchestrator_service_pb2, orchestrator_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class Orchestrator(orchestrator_service_pb2_grpc.OrchestratorServiceServicer):
    """Answers everything the same, later."""

    def __init__(self, slots: int, median_seconds: float, sigma: float) -> None:
        """Take the number of slots and the lognormal distribution of a run's time."""
        self._slots = asyncio.Semaphore(slots)
        self._median_seconds = median_seconds
        self._sigma = sigma
        self._numbers = random.Random(1)  # nosec B311 # repeatable, not secret

    async def Run(self, request: orchestrator_service_pb2.RunRequest, context: Context) -> orchestrator_service_pb2.RunResponse:  # noqa: ARG002, N802 - an RPC
        """Wait for a slot, then take the time."""
        async with self._slots:
            await asyncio.sleep(self._median_seconds * self._numbers.lognormvariate(0.0, self._sigma))
        return orchestrator_service_pb2.RunResponse(run_id=request.run_id, answer="The capital of France is Paris.")


async def serve(slots: int, median_seconds: float, sigma: float) -> None:
    """Serve on a free port, print it, and end when standard input is closed."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    # The one method that it lacks answers UNIMPLEMENTED.
    orchestrator_service_pb2_grpc.add_OrchestratorServiceServicer_to_server(Orchestrator(slots, median_seconds, sigma), server)  # type: ignore[abstract]
    readiness = health.aio.HealthServicer()
    await readiness.set("ensemble.v1.OrchestratorService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(readiness, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
