"""The embedded model runs strategies for real; that it answers is what counts here, not how well."""

import asyncio
from pathlib import Path

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, member_pb2, outcome_pb2, provenance_pb2
from services.chassis.configuration import load_configuration
from services.cli.demo import PROFILE
from services.cli.local_model import installed
from services.cli.up import running

pytestmark = pytest.mark.skipif(not installed(), reason="the embedded model is not installed; make setup brings it")

QUESTION = "What is the capital of France?"
TIMEOUT_SECONDS = 100
Method = provenance_pb2.Method
# A model so small may fail to judge in any readable form; then the deterministic rule decides, which is an answer too.
METHODS = {
    "fusion": {Method.METHOD_FUSED, Method.METHOD_FALLBACK},
    "vote": {Method.METHOD_VOTED},
    "best_of_n": {Method.METHOD_JUDGED, Method.METHOD_FALLBACK},
    "rank": {Method.METHOD_RANKED, Method.METHOD_FALLBACK},
}


async def test_the_local_model_runs_the_strategies(tmp_path: Path) -> None:
    """fusion, vote, best_of_n and rank each ask three members of the real model, and each brings an answer with a receipt of real tokens."""
    # A judge is not shown what its own model wrote, so it judges under another name.
    judge = {"provider": "local", "name": "smollm2-135m-instruct", "timeout": "120s", "limits": {"concurrency": 3}, "context_tokens": 2048}
    configuration = await asyncio.to_thread(load_configuration, environ={}, folder=tmp_path, overrides={"models": {"judge": judge}})
    async with running(configuration, port_base=0) as services, grpc.aio.insecure_channel(services.gateway.address) as channel:
        stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        for strategy, methods in METHODS.items():
            members = [member_pb2.Member(model="smollm2", id=f"m{seat}", temperature=0.5, max_output_tokens=24) for seat in range(3)]
            request = gateway_service_pb2.GenerateRequest(profile=PROFILE, prompt=QUESTION, strategy=strategy, members=members)
            request.options.refiner.model = "judge"
            response = await stub.Generate(request, timeout=TIMEOUT_SECONDS)
            assert response.answer, strategy
            assert response.provenance.method in methods, strategy
            assert [candidate.outcome for candidate in response.candidates].count(outcome_pb2.OUTCOME_OK) >= 2, strategy
            assert response.receipt.usage.output_tokens > 0, strategy
            asked = {call.member_id for call in response.receipt.calls if call.HasField("started_after")}
            assert (asked - {member.id for member in members} != set()) == (strategy != "vote"), strategy
