"""Measure what quorum and grace, and hedges, do to the tail: panels of three calls to a model with heavy tails, then a writer without delay.

All rows come from one run on one machine, a few callers at a time, in turns, so that noise strikes all of them alike. Extra calls are those that were made
beyond three a run; a straggler that was cancelled is no extra call, but it is paid for, so calls cut off are told too.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass, field

import grpc
from rich.console import Console
from rich.table import Table

from bench.mock_provider import MEDIAN_SECONDS, SIGMA, STALL_SECONDS, STALLED_SHARE
from bench.stack import running_stack
from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, outcome_pb2

PANEL = 3
CALLERS = 8
WARM_UP = 40
"""Runs before measuring, so that the percentiles are known."""
GOAL_TAIL, GOAL_EXTRA = 1 / 3, 0.10
_MEMBERS = [{"model": "tailed", "id": seat} for seat in ("a", "b", "c")]


def _profile(**options: object) -> dict[str, object]:
    # Each its own: the configuration reads no YAML anchors, which one shared value would be written with.
    return {"strategy": "fusion", "members": [{**member} for member in _MEMBERS], "refiner": {"model": "writer"}, **options}


ROWS = {
    "wait for all": _profile(quorum=PANEL),
    "quorum 2 of 3 + grace 50 ms": _profile(quorum=2, straggler_grace="50ms"),
    "hedged at the 95th percentile": _profile(quorum=PANEL, hedge={"delay": "500ms", "percentile": 95}),
    "both": _profile(quorum=2, straggler_grace="50ms", hedge={"delay": "500ms", "percentile": 95}),
}


@dataclass(slots=True)
class Measured:
    """What the runs of one row did."""

    latencies: list[float] = field(default_factory=list)
    """Seconds."""
    calls: int = 0
    cut_off: int = 0

    def quantile(self, share: float) -> float:
        """Return a latency in seconds by the nearest rank."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def extra(self) -> float:
        """Calls beyond one for each seat, as a share of the seats."""
        return self.calls / (PANEL * len(self.latencies)) - 1


async def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=800, help="runs of each row")
    runs = parser.parse_args().runs
    measured = {name: Measured() for name in ROWS}
    # A profile is named as the configuration wants it.
    profiles = {f"row-{number}": profile for number, profile in enumerate(ROWS.values())}
    async with running_stack(profiles) as stack, grpc.aio.insecure_channel(stack.gateway) as channel:
        stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)

        async def ask(profile: str, into: Measured) -> None:
            sent = time.perf_counter()
            response = await stub.Generate(gateway_service_pb2.GenerateRequest(profile=profile, prompt="What is the capital of France?"), timeout=30)
            into.latencies.append(time.perf_counter() - sent)
            made = [call for call in response.receipt.calls if call.candidate_id and call.HasField("started_after")]
            into.calls += len(made)
            into.cut_off += sum(call.outcome in {outcome_pb2.OUTCOME_HEDGE_LOST, outcome_pb2.OUTCOME_STRAGGLER_CANCELLED} for call in made)

        async def caller(share: int) -> None:
            for _ in range(share):
                for profile, into in zip(profiles, measured.values(), strict=True):
                    await ask(profile, into)

        for _ in range(WARM_UP):
            await ask("row-0", Measured())
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(caller(runs // CALLERS + (number < runs % CALLERS)))
    _print(Console(width=120), measured)


def _print(console: Console, measured: dict[str, Measured]) -> None:
    table = Table(
        title=f"3 calls of median {MEDIAN_SECONDS * 1e3:.0f} ms (lognormal, sigma {SIGMA}), "
        f"{STALLED_SHARE:.0%} stalls of {STALL_SECONDS / MEDIAN_SECONDS:.0f} times the median; {CALLERS} callers",
        title_justify="left",
    )
    for heading in ("", "runs", "p50 ms", "p99 ms", "p99 against waiting", "extra calls", "calls cut off"):
        table.add_column(heading, justify="left" if not heading else "right")
    waiting = measured["wait for all"]
    for name, row in measured.items():
        table.add_row(
            name,
            str(len(row.latencies)),
            f"{row.quantile(0.5) * 1e3:.0f}",
            f"{row.quantile(0.99) * 1e3:.0f}",
            f"{row.quantile(0.99) / waiting.quantile(0.99):.2f} x",
            f"{row.extra:.1%}",
            f"{row.cut_off / row.calls:.1%}",
        )
    console.print(table)
    for name, row in list(measured.items())[1:]:
        met = row.quantile(0.99) <= waiting.quantile(0.99) * GOAL_TAIL and row.extra <= GOAL_EXTRA
        console.print(f"{'met   ' if met else 'MISSED'} {name}: p99 at most a third of waiting for all, for at most 10 % more calls")


if __name__ == "__main__":
    asyncio.run(main())
