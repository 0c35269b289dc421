"""The fuzzer as a whole; `make fuzz REQUESTS=200000` runs it in earnest."""

import pytest

from bench.fuzz.cases import Case
from bench.fuzz.run import run
from bench.fuzz.shrink import described, shrunk
from ensemble.v1 import gateway_service_pb2

REQUESTS = 2000


@pytest.mark.timeout(300)
async def test_strangers_break_no_rule() -> None:
    """A short run against real processes: every kind of request is sent, some through all four services, and no answer, log line, span or health is wrong."""
    summary = await run(requests=REQUESTS, seed=1)
    assert [f"#{finding.number} {finding.rule}: {finding.text}" for finding in summary.findings] == []
    assert sum(count for family, count in summary.requests.items() if family != "(full)") == REQUESTS
    assert summary.requests["(full)"] > 50
    assert min(summary.codes[code] for code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "CANCELLED", "DEADLINE_EXCEEDED", "UNIMPLEMENTED")) > 0
    assert summary.received["exports"] > 0
    assert min(summary.lines[name] for name in ("front", "gateway", "orchestrator", "limiter", "refiner")) > 0


async def test_a_finding_is_made_smaller() -> None:
    """What it does not need is left out, as long as the rule is still broken."""
    request = gateway_service_pb2.GenerateRequest(prompt="q", system="s", profile="p", labels={"a": "b"})
    case = Case(number=1, family="grammar", messages=(request.SerializeToString(),), metadata=(("a", "1"), ("b", "2")))

    async def breaks(smaller: Case) -> bool:
        return gateway_service_pb2.GenerateRequest.FromString(smaller.messages[0]).system == "s" and ("b", "2") in smaller.metadata

    smallest = await shrunk(case, breaks)
    assert gateway_service_pb2.GenerateRequest.FromString(smallest.messages[0]) == gateway_service_pb2.GenerateRequest(system="s")
    assert smallest.metadata == (("b", "2"),)
    assert 'system: "s"' in described(smallest)
