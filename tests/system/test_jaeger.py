"""What an operator finds in a real Jaeger after a run over the four services: one tree, complete, that says how each part ended.

`test_traces.py` holds the spans as they are exported to their conventions; here they are read back through Jaeger's query API, as a person or a script does.
"""

import asyncio
import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ensemble.v1 import gateway_service_pb2, strategy_options_pb2
from scripts.tools import ROOT
from scripts.trace_tree import StoredSpan, ask
from services.cli.addresses import SERVICES
from tests.support.fake_provider import Answer, FakeProvider, Hang, Status
from tests.support.jaeger import Jaeger
from tests.support.stack import MEMBERS, WRITER, Stack, stack
from tests.support.tools import tool

SECRET = "a prompt that nobody else may read"
GENERATE, STREAM_GENERATE = "ensemble.v1.GatewayService/Generate", "ensemble.v1.GatewayService/StreamGenerate"
RUN, STREAM_RUN = "ensemble.v1.OrchestratorService/Run", "ensemble.v1.OrchestratorService/StreamRun"
REFINE, STREAM_REFINE = "ensemble.v1.RefinerService/Refine", "ensemble.v1.RefinerService/StreamRefine"
ACQUIRE, REPORT = "ensemble.v1.LimiterService/AcquirePermits", "ensemble.v1.LimiterService/ReportOutcomes"
WORKFLOW, PANEL = "invoke_workflow ensemble.fusion", "ensemble.panel"


@pytest.fixture(scope="module")
def jaeger() -> Iterator[Jaeger]:
    """Run one Jaeger for all tests of this module; each looks at a trace of its own."""
    with Jaeger(tool("jaeger")) as running:
        yield running


@pytest.fixture
async def traced(provider: FakeProvider, jaeger: Jaeger) -> AsyncIterator[Stack]:
    """Run the four services with spans sent to Jaeger."""
    async with stack(provider, telemetry={"endpoint": jaeger.endpoint}) as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller with a trace of its own, whose span is at nobody's but its own."""

    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What it sends along."""
        return (("traceparent", f"00-{self.trace_id}-{self.span_id}-01"),)


@pytest.fixture
def caller() -> Caller:
    """Return a caller that nobody was before."""
    return Caller()


def _step(span: StoredSpan) -> str:
    return f"{span.service.removeprefix('ensemble-')} {span.kind} {span.name}"


def _paths(spans: Sequence[StoredSpan], caller: Caller) -> Counter[tuple[str, ...]]:
    """Return how often each way from the caller down to a span occurs; a span that hangs on nothing known has a "?" above it."""
    by_id = {span.span_id: span for span in spans}

    def path(span: StoredSpan) -> tuple[str, ...]:
        if span.parent_id == caller.span_id:
            return (_step(span),)
        parent = by_id.get(span.parent_id)
        return ("?", _step(span)) if parent is None else (*path(parent), _step(span))

    return Counter(path(span) for span in spans)


def _chats(spans: Sequence[StoredSpan]) -> dict[tuple[str, int], StoredSpan]:
    """Return the calls of models by member and attempt."""
    return {(span.attributes["ensemble.member"], span.attributes["ensemble.attempt"]): span for span in spans if span.name.startswith("chat ")}


def _called(spans: Sequence[StoredSpan], name: str) -> int:
    return sum(span.name == name and span.kind == "client" for span in spans)


def _complete(spans: Sequence[StoredSpan], *, root: str, chats: int, reported: int) -> bool:
    """Whether all spans have come: the outermost, the models' calls, the reports of their permits, and a server's span for each client's of our own RPCs."""
    names = Counter((span.name, span.kind) for span in spans)
    both = all(names[name, "client"] == names[name, "server"] for name, _ in names if name.startswith("ensemble.v1.") and name != root)
    return bool(names[root, "server"]) and len(_chats(spans)) == chats and both and _called(spans, REPORT) >= reported and bool(names[WORKFLOW, "internal"])


def _one(spans: Sequence[StoredSpan], name: str, kind: str) -> StoredSpan:
    (found,) = [span for span in spans if (span.name, span.kind) == (name, kind)]
    return found


def _hold_together(spans: Sequence[StoredSpan], caller: Caller, services: Stack) -> None:
    """Check what is so of every run: one trace, no span without a parent, each says how it ended and by whom, and none holds what was asked or answered."""
    assert {span.trace_id for span in spans} == {caller.trace_id}
    assert len({span.span_id for span in spans}) == len(spans)
    by_id = {span.span_id: span for span in spans}
    ports = {f"ensemble.v1.{name.capitalize()}Service": int(address.rpartition(":")[2]) for name, address in services.running.addresses().items()}
    for span in spans:
        assert span.parent_id in by_id or span.parent_id == caller.span_id, _step(span)
        if span.parent_id in by_id:
            assert span.began_us >= by_id[span.parent_id].began_us, _step(span)
        if span.name.startswith("ensemble.v1."):
            service = span.name.partition("/")[0]
            assert span.attributes["rpc.system.name"] == "grpc"
            assert span.attributes["rpc.method"] == span.name
            assert (span.attributes["server.address"], span.attributes["server.port"]) == ("127.0.0.1", ports[service])
            code = span.attributes["rpc.response.status_code"]
            assert span.attributes.get("error.type", "OK") == code
            if span.kind == "client":
                assert span.error is (code != "OK")
        elif span.name.startswith("chat "):
            assert (span.kind, span.attributes["gen_ai.operation.name"], span.attributes["gen_ai.provider.name"]) == ("client", "chat", "fake")
            assert span.name == f"chat {span.attributes['gen_ai.request.model']}"
            assert ("error.type" in span.attributes) is span.error is (span.attributes["ensemble.outcome"] != "OK")
        else:
            assert span.kind == "internal"
            assert "gen_ai.request.model" not in span.attributes
            assert span.name != PANEL or "ensemble.outcome" in span.attributes
    kept = repr(spans)
    assert SECRET not in kept
    assert "an answer" not in kept


async def test_a_streamed_fusion_is_one_tree_from_the_caller_down(traced: Stack, jaeger: Jaeger, provider: FakeProvider, caller: Caller) -> None:
    """Gateway, orchestrator, limiter, panel with the straggler that was cancelled, refiner: each span under the one that caused it, in the caller's trace."""
    provider.script("gamma", Hang())
    request = gateway_service_pb2.StreamGenerateRequest(generate=gateway_service_pb2.GenerateRequest(prompt=SECRET))
    events = [event async for event in traced.gateway.StreamGenerate(request, timeout=30, metadata=caller.metadata)]
    assert events[0].run_started.trace_id == events[-1].run_finished.trace_id == caller.trace_id

    spans = await jaeger.trace(caller.trace_id, lambda got: _complete(got, root=STREAM_GENERATE, chats=4, reported=2))
    _hold_together(spans, caller, traced)
    gateway = (f"gateway server {STREAM_GENERATE}", f"gateway client {STREAM_RUN}")
    run = (*gateway, f"orchestrator server {STREAM_RUN}")
    workflow = (*run, f"orchestrator internal {WORKFLOW}")
    panel = (*workflow, f"orchestrator internal {PANEL}")
    refine = (*workflow, f"orchestrator client {STREAM_REFINE}", f"refiner server {STREAM_REFINE}")
    once = {
        *(gateway[:length] for length in (1, 2)),
        *(run, workflow, panel, refine[:-1], refine),
        *((*panel, f"orchestrator client chat {name}") for name in MEMBERS),
        (*refine, f"refiner client chat {WRITER}"),
        *((*workflow, f"orchestrator client {ACQUIRE}", f"limiter server {ACQUIRE}")[:length] for length in (len(workflow) + 1, len(workflow) + 2)),
        *((*refine, f"refiner client {ACQUIRE}", f"limiter server {ACQUIRE}")[:length] for length in (len(refine) + 1, len(refine) + 2)),
    }
    paths = _paths(spans, caller)
    # Permits are reported in one batch or several, by whoever held them.
    reports = {path: count for path, count in paths.items() if path[-1].endswith(REPORT)}
    assert {path: count for path, count in paths.items() if path not in reports} == dict.fromkeys(once, 1)
    assert set(reports) == {
        *((*above, f"{who} client {REPORT}") for above, who in ((workflow, "orchestrator"), (refine, "refiner"))),
        *((*above, f"{who} client {REPORT}", f"limiter server {REPORT}") for above, who in ((workflow, "orchestrator"), (refine, "refiner"))),
    }

    assert {span.attributes["rpc.response.status_code"] for span in spans if span.name.startswith("ensemble.v1.")} == {"OK"}
    chats = _chats(spans)
    assert {member: span.attributes["ensemble.outcome"] for (member, _), span in chats.items()} == {
        **dict.fromkeys(("alpha", "beta", "refiner"), "OK"),
        "gamma": "STRAGGLER_CANCELLED",
    }
    told = chats["alpha", 1].attributes
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"], told["ensemble.hedge"]) == (10, 5, False)
    assert (told["gen_ai.response.model"], told["gen_ai.response.id"]) == ("fake", "chatcmpl-fake")
    # Jaeger keeps a list as JSON text.
    assert json.loads(told["gen_ai.response.finish_reasons"]) == ["stop"]
    of_panel = _one(spans, PANEL, "internal").attributes
    assert [of_panel[f"ensemble.panel.{part}"] for part in ("size", "quorum", "succeeded")] == [3, 2, 2]
    assert of_panel["ensemble.outcome"] == "quorum"
    of_run = _one(spans, WORKFLOW, "internal").attributes
    assert (of_run["gen_ai.operation.name"], of_run["gen_ai.workflow.name"]) == ("invoke_workflow", "ensemble.fusion")
    # The straggler's end is the panel's end; the refinement comes after it.
    ends = {span.name: span.began_us + span.took_us for span in spans if span.name in {PANEL, "chat gamma"}}
    assert ends["chat gamma"] <= ends[PANEL] <= _one(spans, STREAM_REFINE, "client").began_us


async def test_all_four_services_are_found_by_name(traced: Stack, jaeger: Jaeger, caller: Caller) -> None:
    """As Jaeger's list of services has them, each beginning with "ensemble-"; the trace is found by its service and by a tag."""
    await traced.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=SECRET), timeout=30, metadata=caller.metadata)
    await jaeger.trace(caller.trace_id, lambda got: _complete(got, root=GENERATE, chats=4, reported=2))
    assert {f"ensemble-{name}" for name in SERVICES} <= set(await asyncio.to_thread(ask, jaeger.address, "/api/services"))
    query = "/api/traces?service=ensemble-refiner&limit=1000&tags=%7B%22ensemble.member%22%3A%22refiner%22%7D"
    found = await asyncio.to_thread(ask, jaeger.address, query)
    assert caller.trace_id in {trace["traceID"] for trace in found}


async def test_hedges_and_retries_are_told_apart(traced: Stack, jaeger: Jaeger, provider: FakeProvider, caller: Caller) -> None:
    """Every attempt stands under the panel, with its number, whether it was a hedge, and how it ended; as many as the provider was asked."""
    provider.script("alpha", Hang(), Answer())
    provider.script("beta", Status(503), Answer())
    options = strategy_options_pb2.StrategyOptions(
        quorum=3, hedge=strategy_options_pb2.HedgePolicy(delay=Duration(nanos=50_000_000)), retry=strategy_options_pb2.RetryPolicy(max_attempts=2)
    )
    request = gateway_service_pb2.GenerateRequest(prompt=SECRET, options=options)
    await traced.gateway.Generate(request, timeout=30, metadata=caller.metadata)
    spans = await jaeger.trace(caller.trace_id, lambda got: _complete(got, root=GENERATE, chats=len(provider.requests), reported=2))
    _hold_together(spans, caller, traced)
    panel = _one(spans, PANEL, "internal")
    attempts = {
        key: (span.attributes["ensemble.hedge"], span.attributes["ensemble.outcome"], span.attributes.get("error.type"))
        for key, span in _chats(spans).items()
        if span.parent_id == panel.span_id
    }
    assert {key: attempts[key] for key in (("alpha", 1), ("alpha", 2), ("beta", 1), ("beta", 2))} == {
        ("alpha", 1): (False, "HEDGE_LOST", "hedge_lost"),
        ("alpha", 2): (True, "OK", None),
        ("beta", 1): (False, "PROVIDER_FAILED", "http_503"),
        ("beta", 2): (False, "OK", None),
    }


async def test_a_refiner_that_fails_is_seen_below_an_answer_that_is_there(traced: Stack, jaeger: Jaeger, provider: FakeProvider, caller: Caller) -> None:
    """The call is OK and the response degraded; the tree says which call of which model was to blame."""
    provider.script(WRITER, Status(400))
    request = gateway_service_pb2.GenerateRequest(prompt=SECRET)
    response = await traced.gateway.Generate(request, timeout=30, metadata=caller.metadata)
    assert response.degraded
    spans = await jaeger.trace(caller.trace_id, lambda got: _complete(got, root=GENERATE, chats=len(provider.requests), reported=2))
    _hold_together(spans, caller, traced)
    assert (_one(spans, GENERATE, "server").attributes["rpc.response.status_code"], _one(spans, GENERATE, "server").error) == ("OK", False)
    assert not _one(spans, WORKFLOW, "internal").error
    chat = _chats(spans)["refiner", 1]
    assert [span for span in spans if span.error] == [chat]
    assert (chat.attributes["ensemble.outcome"], chat.attributes["error.type"]) == ("PROVIDER_REJECTED", "http_400")
    # A refinement without an answer is one of its answers, not a failed call.
    refine = _one(spans, REFINE, "server")
    assert (chat.parent_id, refine.attributes["rpc.response.status_code"]) == (refine.span_id, "OK")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_run_ends_all_its_spans(traced: Stack, jaeger: Jaeger, provider: FakeProvider, caller: Caller, streamed: bool) -> None:
    """As many as were begun, and each says that it was cancelled, down to the calls of the models."""
    for name in MEMBERS:
        provider.script(name, Hang())
    question = gateway_service_pb2.GenerateRequest(prompt=SECRET)
    call: Any
    if streamed:
        call = traced.gateway.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=question), timeout=30, metadata=caller.metadata)
        await call.read()
    else:
        call = traced.gateway.Generate(question, timeout=30, metadata=caller.metadata)
    await asyncio.gather(*(provider.started(name) for name in MEMBERS))
    call.cancel()
    root, run = (STREAM_GENERATE, STREAM_RUN) if streamed else (GENERATE, RUN)
    spans = await jaeger.trace(caller.trace_id, lambda got: _complete(got, root=root, chats=3, reported=1))
    _hold_together(spans, caller, traced)
    codes = {(span.name, span.kind): span.attributes["rpc.response.status_code"] for span in spans if span.name in {root, run}}
    assert codes == dict.fromkeys(((root, "server"), (run, "client"), (run, "server")), "CANCELLED")
    # The caller's doing is no failure of a server.
    assert not _one(spans, root, "server").error
    assert {key: span.attributes["ensemble.outcome"] for key, span in _chats(spans).items()} == {(name, 1): "CANCELLED" for name in MEMBERS}
    panel, workflow = _one(spans, PANEL, "internal"), _one(spans, WORKFLOW, "internal")
    assert (panel.attributes["ensemble.outcome"], panel.error) == ("cancelled", True)
    assert (workflow.attributes["error.type"], workflow.error) == ("CancelledError", True)


async def test_a_quorum_that_is_missed_is_seen_from_top_to_bottom(traced: Stack, jaeger: Jaeger, provider: FakeProvider, caller: Caller) -> None:
    """The refused call, the panel without its quorum, and each call that failed, with its reason."""
    for name in MEMBERS[:2]:
        provider.script(name, Status(400))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await traced.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=SECRET), timeout=30, metadata=caller.metadata)
    spans = await jaeger.trace(caller.trace_id, lambda got: _complete(got, root=GENERATE, chats=len(provider.requests), reported=1))
    _hold_together(spans, caller, traced)
    assert _one(spans, GENERATE, "server").attributes["rpc.response.status_code"] == refused.value.code().name
    panel = _one(spans, PANEL, "internal").attributes
    assert (panel["ensemble.outcome"], panel["ensemble.panel.succeeded"] < panel["ensemble.panel.quorum"]) == ("no_quorum", True)
    assert {span.attributes["error.type"] for (name, _), span in _chats(spans).items() if name in MEMBERS[:2]} == {"http_400"}
    assert _one(spans, WORKFLOW, "internal").error


async def test_a_judgement_can_be_read_below_the_refinement(traced: Stack, jaeger: Jaeger, provider: FakeProvider, caller: Caller) -> None:
    """An event for each candidate, with its place and its score."""
    provider.script(WRITER, Answer(text='{"best": 2}'))
    request = gateway_service_pb2.GenerateRequest(prompt=SECRET, strategy="best_of_n", options=strategy_options_pb2.StrategyOptions(quorum=3))
    await traced.gateway.Generate(request, timeout=30, metadata=caller.metadata)
    spans = await jaeger.trace(caller.trace_id, lambda got: any((span.name, span.kind) == (REFINE, "server") for span in got))
    events = [event.attributes for event in _one(spans, REFINE, "server").events if event.name == "gen_ai.evaluation.result"]
    scores = {event["ensemble.candidate.display_index"]: event["gen_ai.evaluation.score.value"] for event in events}
    assert scores == {1: 0.0, 2: 1.0, 3: 0.0}


async def _trace_tree(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, str(ROOT / "scripts" / "trace_tree.py"), *arguments]
    ended = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


async def test_the_tree_can_be_printed(traced: Stack, jaeger: Jaeger, provider: FakeProvider, caller: Caller) -> None:
    """scripts/trace_tree.py lists the latest calls and prints one as a tree; what cannot be had it says."""
    provider.script("gamma", Hang())
    await traced.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=SECRET), timeout=30, metadata=caller.metadata)
    spans = await jaeger.trace(caller.trace_id, lambda got: _complete(got, root=GENERATE, chats=4, reported=2))
    where = ("--jaeger", f"http://{jaeger.address}")
    code, listed, _ = await _trace_tree(*where, "--limit", "1000")
    assert code == 0
    (line,) = [line for line in listed.splitlines() if line.startswith(caller.trace_id)]
    assert f"ms {GENERATE} OK" in line
    code, printed, _ = await _trace_tree(*where, caller.trace_id)
    assert code == 0
    head, first, *rest = printed.splitlines()
    assert head.split() == ["began", "ms", "took", "ms"]
    assert first.split()[0] == "0.0"
    assert first.endswith(f"{GENERATE} (gateway, server) rpc.response.status_code=OK")
    assert len(rest) == len(spans) - 1
    (loser,) = [line for line in rest if "chat gamma" in line]
    assert " ! " in loser
    assert "outcome=STRAGGLER_CANCELLED" in loser
    assert loser.endswith("error.type=grace_over")
    code, _, said = await _trace_tree(*where, "0" * 31 + "1")
    assert (code, "Jaeger has no trace 00000000000000000000000000000001" in said) == (1, True)
    code, _, said = await _trace_tree("--jaeger", "http://127.0.0.1:9", caller.trace_id)
    assert (code, "no Jaeger answers at 127.0.0.1:9" in said) == (1, True)
