"""GatewayService on the wire: messages to questions, plans to calls, results to messages. It decides nothing."""

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from itertools import islice

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from grpc import aio

from ensemble.v1 import (
    gateway_service_pb2,
    gateway_service_pb2_grpc,
    generation_parameters_pb2,
    member_pb2,
    model_state_pb2,
    orchestrator_service_pb2,
    strategy_options_pb2,
)
from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, FieldViolation, InvalidInput, RemoteError
from services.chassis.server_deadline import OVERSTATED_SHARE, deadline_of
from services.chassis.status import with_fields_below
from services.gateway.availability import Availability
from services.gateway.caller import current_caller
from services.gateway.planner import Planner
from services.gateway.profiles import Profile, usable
from services.gateway.question import (
    MOST_LABELS,
    MOST_MESSAGES,
    MOST_PARAMETER_BYTES,
    MOST_STOPS,
    NO_GENERATION,
    NO_OPTIONS,
    AskedGeneration,
    AskedHedge,
    AskedMember,
    AskedMessage,
    AskedOptions,
    AskedRefiner,
    AskedRetry,
    Question,
)
from services.gateway.runs import Runs
from services.gateway.settings import GatewaySettings
from services.models.catalogue import ModelEntry
from services.models.plan import MOST_CALLS
from services.models.wire.durations import NANOS, to_duration
from services.models.wire.plans import ROLES, member_to_proto, options_to_proto

_STREAMED = "generate."
"""Where the question stands in a request for events."""


class GatewayServicer(gateway_service_pb2_grpc.GatewayServiceServicer):
    """Serves GatewayService."""

    def __init__(
        self,
        *,
        planner: Planner,
        profiles: Iterable[Profile],
        models: Iterable[ModelEntry],
        runs: Runs[orchestrator_service_pb2.RunResponse, orchestrator_service_pb2.StreamRunResponse],
        availability: Availability[model_state_pb2.ModelState],
        settings: GatewaySettings,
    ) -> None:
        self._planner = planner
        self._profiles = [(profile, _profile(profile)) for profile in sorted(profiles, key=lambda one: one.name)]
        self._models = sorted(models, key=lambda one: one.name)
        self._runs = runs
        self._availability = availability
        self._settings = settings

    async def Generate(
        self, request: gateway_service_pb2.GenerateRequest, context: aio.ServicerContext[object, object]
    ) -> gateway_service_pb2.GenerateResponse:
        """Ask the ensemble."""
        self._check_size(request)
        deadline = self._deadline(context)
        order = self._planner.order(read_question(request), current_caller.get(), content=content_of(request))
        return _response(await self._runs.run(order, deadline))

    async def StreamGenerate(
        self, request: gateway_service_pb2.StreamGenerateRequest, context: aio.ServicerContext[object, object]
    ) -> AsyncIterator[gateway_service_pb2.StreamGenerateResponse]:
        """Ask the ensemble and tell what happens."""
        self._check_size(request)
        deadline = self._deadline(context)
        asked = request.generate
        order = self._planner.order(read_question(asked), current_caller.get(), content=content_of(asked), at=_STREAMED)
        async with _read_within(2 * deadline.remaining()), aclosing(self._runs.stream(order, deadline)) as events:
            try:
                async for event in events:
                    yield _event(event)
            except RemoteError as refusal:
                # The orchestrator names fields as they stand in a run; only the strategy knows some of its options, so it refuses what was let through here.
                raise with_fields_below(refusal, _STREAMED) from refusal
            except InvalidInput as refusal:
                # What stands between here and the orchestrator names fields as they stand in a question.
                below = [FieldViolation(field=_STREAMED + violation.field, description=violation.description) for violation in refusal.violations]
                raise InvalidInput(below) from refusal

    async def ListProfiles(
        self,
        request: gateway_service_pb2.ListProfilesRequest,
        context: aio.ServicerContext[object, object],
    ) -> gateway_service_pb2.ListProfilesResponse:
        """List the profiles that the caller may use as they stand."""
        caller = current_caller.get()
        return gateway_service_pb2.ListProfilesResponse(profiles=[told for profile, told in self._profiles if usable(profile, caller)])

    async def ListModels(
        self,
        request: gateway_service_pb2.ListModelsRequest,
        context: aio.ServicerContext[object, object],
    ) -> gateway_service_pb2.ListModelsResponse:
        """List the models that the caller may use with their states; one that the limiter does not know has none."""
        caller = current_caller.get()
        states = await self._availability.states(self._deadline(context))
        return gateway_service_pb2.ListModelsResponse(
            models=[
                gateway_service_pb2.Model(
                    name=model.name,
                    provider=model.provider,
                    provider_model=model.provider_model,
                    timeout=to_duration(model.timeouts.total),
                    state=states.get(model.name),
                )
                for model in self._models
                if caller.may_call(model.name)
            ]
        )

    def _check_size(self, request: Message) -> None:
        if request.ByteSize() > self._settings.most_request_bytes:
            raise InvalidInput([FieldViolation(field="request", description=f"is larger than {self._settings.most_request_bytes} bytes")])

    def _deadline(self, context: aio.ServicerContext[object, object]) -> Deadline:
        return deadline_of(
            context,
            default_seconds=self._settings.default_deadline_seconds,
            cap_seconds=self._settings.deadline_cap_seconds,
            overstated_share=OVERSTATED_SHARE,
        )


@asynccontextmanager
async def _read_within(seconds: float) -> AsyncIterator[None]:
    """Hold whoever reads a stream to a time: a reader who stops would hold all that the run has for as long as he likes, where his call has no deadline.

    gRPC waits for him between two events, so it is the call's task that is cancelled. Raises `DeadlineSpent` where it is not gRPC that waits.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineSpent("the reading of the stream") from None


def read_question(request: gateway_service_pb2.GenerateRequest) -> Question:
    """Return what was asked, good or bad. Of a list that is too long no more is read than shows it to be."""
    return Question(
        request_id=request.request_id,
        profile=request.profile,
        prompt=request.prompt,
        system=request.system,
        messages=tuple(AskedMessage(role=ROLES.from_wire(message.role) or "", text=message.text) for message in islice(request.messages, MOST_MESSAGES + 1)),
        strategy=request.strategy,
        options=_options(request.options) if request.HasField("options") else NO_OPTIONS,
        members=tuple(map(_member, islice(request.members, MOST_CALLS + 1))),
        generation=_generation(request.generation) if request.HasField("generation") else NO_GENERATION,
        include_candidates=request.include_candidates,
        labels=dict(islice(request.labels.items(), MOST_LABELS + 1)),
        max_cost_micro_usd=request.max_cost_micro_usd if request.HasField("max_cost_micro_usd") else None,
        response_schema=request.response_schema,
        skip_deadline_check=request.skip_deadline_check,
    )


def content_of(request: gateway_service_pb2.GenerateRequest) -> bytes:
    """Return a digest that is equal exactly for requests that ask the same, whatever their ids; nothing for one without an id, which has no repeats."""
    if not request.request_id:
        return b""
    asked = gateway_service_pb2.GenerateRequest()
    asked.CopyFrom(request)
    asked.ClearField("request_id")
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()


def _member(message: member_pb2.Member) -> AskedMember:
    return AskedMember(
        id=message.id,
        model=message.model,
        samples=message.samples or 1,
        weight=message.weight if message.HasField("weight") else 1.0,
        temperature=message.temperature if message.HasField("temperature") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        timeout=_seconds(message.timeout) if message.HasField("timeout") else None,
        persona=message.persona,
    )


def _options(message: strategy_options_pb2.StrategyOptions) -> AskedOptions:
    return AskedOptions(
        quorum=message.quorum if message.HasField("quorum") else None,
        straggler_grace=_seconds(message.straggler_grace) if message.HasField("straggler_grace") else None,
        panel_share=message.panel_share if message.HasField("panel_share") else None,
        refiner=_refiner(message.refiner) if message.HasField("refiner") else None,
        shuffle_seed=message.shuffle_seed if message.HasField("shuffle_seed") else None,
        candidate_byte_limit=message.candidate_byte_limit if message.HasField("candidate_byte_limit") else None,
        parameters=_parameters(message.parameters),
        hedge=_hedge(message.hedge) if message.HasField("hedge") else None,
        retry=_retry(message.retry) if message.HasField("retry") else None,
        early_stop_agreement=message.early_stop_agreement if message.HasField("early_stop_agreement") else None,
    )


def _hedge(message: strategy_options_pb2.HedgePolicy) -> AskedHedge:
    return AskedHedge(
        delay=_seconds(message.delay) if message.HasField("delay") else None,
        percentile=message.percentile if message.HasField("percentile") else None,
        max=message.max if message.HasField("max") else None,
    )


def _retry(message: strategy_options_pb2.RetryPolicy) -> AskedRetry:
    return AskedRetry(
        max_attempts=message.max_attempts if message.HasField("max_attempts") else None,
        rate_limited=message.rate_limited if message.HasField("rate_limited") else None,
        failed=message.failed if message.HasField("failed") else None,
        timed_out=message.timed_out if message.HasField("timed_out") else None,
    )


def _refiner(message: strategy_options_pb2.RefinerMember) -> AskedRefiner:
    return AskedRefiner(
        model=message.model,
        temperature=message.temperature if message.HasField("temperature") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        timeout=_seconds(message.timeout) if message.HasField("timeout") else None,
    )


def _generation(message: generation_parameters_pb2.GenerationParameters) -> AskedGeneration:
    return AskedGeneration(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        stop=tuple(islice(message.stop, MOST_STOPS + 1)),
        seed=message.seed if message.HasField("seed") else None,
    )


def _seconds(duration: Duration) -> float:
    """Return the seconds; NaN where the nanoseconds are out of their range or of the other sign."""
    if not -NANOS < duration.nanos < NANOS or duration.seconds * duration.nanos < 0:
        return math.nan
    return duration.seconds + duration.nanos / NANOS


def _parameters(parameters: Struct) -> dict[str, object] | None:
    # Unlike json_format this neither raises for numbers that are not finite nor builds what is refused anyway.
    if parameters.ByteSize() > MOST_PARAMETER_BYTES:
        return None
    return {name: _plain(value) for name, value in parameters.fields.items()}


def _plain(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "number_value":
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return {name: _plain(inner) for name, inner in value.struct_value.fields.items()}
        case "list_value":
            return [_plain(inner) for inner in value.list_value.values]
        case _:
            return None


def _response(run: orchestrator_service_pb2.RunResponse) -> gateway_service_pb2.GenerateResponse:
    return gateway_service_pb2.GenerateResponse(
        run_id=run.run_id,
        answer=run.answer,
        candidates=run.candidates,
        receipt=run.receipt if run.HasField("receipt") else None,
        provenance=run.provenance if run.HasField("provenance") else None,
        degraded=run.degraded,
        degradations=run.degradations,
        trace_id=run.trace_id,
        analysis=run.analysis if run.HasField("analysis") else None,
    )


def _event(event: orchestrator_service_pb2.StreamRunResponse) -> gateway_service_pb2.StreamGenerateResponse:
    # The two messages differ in nothing but the last event's type; what a newer orchestrator may add reaches the caller as an event without content.
    kind = event.WhichOneof("event")
    if kind == "run_finished":
        return gateway_service_pb2.StreamGenerateResponse(run_finished=_response(event.run_finished))
    message = gateway_service_pb2.StreamGenerateResponse()
    if kind is not None:
        getattr(message, kind).CopyFrom(getattr(event, kind))
    return message


def _profile(profile: Profile) -> gateway_service_pb2.Profile:
    return gateway_service_pb2.Profile(
        name=profile.name,
        description=profile.description,
        strategy=profile.strategy,
        options=options_to_proto(profile.options),
        members=[member_to_proto(member) for member in profile.members],
    )
