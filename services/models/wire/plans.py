"""Plans of runs, both ways: the gateway writes them, the orchestrator reads them."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from ensemble.v1 import generation_parameters_pb2, member_pb2, message_pb2, orchestrator_service_pb2, strategy_options_pb2
from services.chassis.errors import FieldViolation, InvalidInput
from services.models.conversation import Message, Role, Sampling
from services.models.plan import HedgePolicy, Member, RunPlan, StrategyOptions
from services.models.refinement import DEFAULT_CANDIDATE_BYTE_LIMIT, Writer
from services.models.retry_policy import RetryPolicy
from services.models.wire.durations import to_duration, to_optional_duration, to_seconds
from services.models.wire.enums import EnumMap

MOST_WEIGHT = 100
ROLES = EnumMap(Role, message_pb2.Role.items(), "ROLE_")


def message_to_proto(message: Message) -> message_pb2.Message:
    """Return the message."""
    return message_pb2.Message(role=ROLES.to_wire(message.role), text=message.text)


def message_from_proto(message: message_pb2.Message, field: str) -> Message:
    """Return the turn. Raises `InvalidInput` naming `field`.role where the role is none."""
    role = ROLES.from_wire(message.role)
    if role is None:
        raise InvalidInput([FieldViolation(field=f"{field}.role", description="must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT")])
    return Message(role=role, text=message.text)


def sampling_to_proto(sampling: Sampling) -> generation_parameters_pb2.GenerationParameters:
    """Return the message."""
    return generation_parameters_pb2.GenerationParameters(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_output_tokens=sampling.max_output_tokens,
        stop=sampling.stop,
        seed=sampling.seed,
    )


def sampling_from_proto(message: generation_parameters_pb2.GenerationParameters) -> Sampling:
    """Return the parameters."""
    return Sampling(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        stop=tuple(message.stop),
        seed=message.seed if message.HasField("seed") else None,
    )


def member_to_proto(member: Member) -> member_pb2.Member:
    """Return the message."""
    return member_pb2.Member(
        id=member.member_id,
        model=member.model,
        samples=member.samples,
        weight=member.weight,
        temperature=member.temperature,
        max_output_tokens=member.max_output_tokens,
        timeout=to_optional_duration(member.timeout_seconds),
        persona=member.persona,
    )


def member_from_proto(message: member_pb2.Member) -> Member:
    """Return the member."""
    return Member(
        member_id=message.id or message.model,
        model=message.model,
        samples=message.samples or 1,
        weight=message.weight if message.HasField("weight") else 1.0,
        temperature=message.temperature if message.HasField("temperature") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        timeout_seconds=to_seconds(message.timeout) if message.HasField("timeout") else None,
        persona=message.persona,
    )


def writer_to_proto(writer: Writer) -> strategy_options_pb2.RefinerMember:
    """Return the message."""
    return strategy_options_pb2.RefinerMember(
        model=writer.model,
        temperature=writer.temperature,
        max_output_tokens=writer.max_output_tokens,
        timeout=to_optional_duration(writer.timeout_seconds),
    )


def writer_from_proto(message: strategy_options_pb2.RefinerMember) -> Writer:
    """Return the writer."""
    return Writer(
        model=message.model,
        temperature=message.temperature if message.HasField("temperature") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        timeout_seconds=to_seconds(message.timeout) if message.HasField("timeout") else None,
    )


def retry_to_proto(retry: RetryPolicy) -> strategy_options_pb2.RetryPolicy:
    """Return the message."""
    return strategy_options_pb2.RetryPolicy(max_attempts=retry.max_attempts, rate_limited=retry.rate_limited, failed=retry.failed, timed_out=retry.timed_out)


def retry_from_proto(message: strategy_options_pb2.RetryPolicy) -> RetryPolicy:
    """Return the policy; what is unset takes the default."""
    return RetryPolicy(
        max_attempts=message.max_attempts if message.HasField("max_attempts") else RetryPolicy().max_attempts,
        rate_limited=message.rate_limited if message.HasField("rate_limited") else None,
        failed=message.failed if message.HasField("failed") else None,
        timed_out=message.timed_out if message.HasField("timed_out") else None,
    )


def hedge_to_proto(hedge: HedgePolicy) -> strategy_options_pb2.HedgePolicy:
    """Return the message."""
    return strategy_options_pb2.HedgePolicy(delay=to_duration(hedge.delay_seconds), percentile=hedge.percentile, max=hedge.most)


def hedge_from_proto(message: strategy_options_pb2.HedgePolicy) -> HedgePolicy:
    """Return the policy; what is unset takes the default."""
    return HedgePolicy(
        delay_seconds=to_seconds(message.delay) if message.HasField("delay") else HedgePolicy().delay_seconds,
        percentile=message.percentile if message.HasField("percentile") else None,
        most=message.max if message.HasField("max") else None,
    )


def options_to_proto(options: StrategyOptions) -> strategy_options_pb2.StrategyOptions:
    """Return the message."""
    message = strategy_options_pb2.StrategyOptions(
        quorum=options.quorum,
        straggler_grace=to_duration(options.straggler_grace_seconds),
        panel_share=options.panel_share,
        refiner=None if options.refiner is None else writer_to_proto(options.refiner),
        shuffle_seed=options.shuffle_seed,
        candidate_byte_limit=options.candidate_byte_limit,
        hedge=None if options.hedge is None else hedge_to_proto(options.hedge),
        retry=retry_to_proto(options.retry),
        early_stop_agreement=options.early_stop_agreement,
    )
    if options.parameters:
        ParseDict(dict(options.parameters), message.parameters)
    return message


def options_from_proto(message: strategy_options_pb2.StrategyOptions) -> StrategyOptions:
    """Return the options; what is unset takes the default."""
    defaults = StrategyOptions()
    return StrategyOptions(
        quorum=message.quorum if message.HasField("quorum") else None,
        straggler_grace_seconds=to_seconds(message.straggler_grace) if message.HasField("straggler_grace") else defaults.straggler_grace_seconds,
        panel_share=message.panel_share if message.HasField("panel_share") else defaults.panel_share,
        refiner=writer_from_proto(message.refiner) if message.HasField("refiner") else None,
        shuffle_seed=message.shuffle_seed if message.HasField("shuffle_seed") else None,
        candidate_byte_limit=message.candidate_byte_limit if message.HasField("candidate_byte_limit") else DEFAULT_CANDIDATE_BYTE_LIMIT,
        hedge=hedge_from_proto(message.hedge) if message.HasField("hedge") else None,
        retry=retry_from_proto(message.retry) if message.HasField("retry") else defaults.retry,
        early_stop_agreement=message.early_stop_agreement if message.HasField("early_stop_agreement") else None,
        parameters=_with_whole_numbers(MessageToDict(message.parameters)) if message.HasField("parameters") else {},
    )


def _with_whole_numbers(value: Any) -> Any:
    """Return a value of `google.protobuf.Struct`, all of whose numbers are floats, with those made whole that were."""
    if isinstance(value, dict):
        return {name: _with_whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plan_to_proto(plan: RunPlan) -> orchestrator_service_pb2.RunRequest:
    """Return the message."""
    return orchestrator_service_pb2.RunRequest(
        run_id=plan.run_id,
        tenant=plan.tenant,
        messages=[message_to_proto(message) for message in plan.messages],
        strategy=plan.strategy,
        options=options_to_proto(plan.options),
        members=[member_to_proto(member) for member in plan.members],
        generation=sampling_to_proto(plan.sampling),
        include_candidates=plan.include_candidates,
        max_cost_micro_usd=plan.max_cost_micro_usd,
        response_schema=plan.response_schema,
    )


def _number_violations(message: orchestrator_service_pb2.RunRequest) -> Iterator[FieldViolation]:
    """Find numbers that no caller who has checked his request sends, and that would come up as something else in the middle of a run."""
    for place, member in enumerate(message.members):
        if member.HasField("weight") and not 0 < member.weight <= MOST_WEIGHT:
            yield FieldViolation(field=f"members[{place}].weight", description=f"must be above 0 and at most {MOST_WEIGHT}")
    try:
        MessageToDict(message.options.parameters)
    except ValueError:
        yield FieldViolation(field="options.parameters", description="must hold finite numbers only")


def plan_from_proto(message: orchestrator_service_pb2.RunRequest) -> RunPlan:
    """Return the plan. Raises `InvalidInput` where a field that every run needs is missing."""
    violations = [
        FieldViolation(field=field, description="is required")
        for field, present in (("run_id", message.run_id), ("messages", message.messages), ("strategy", message.strategy), ("members", message.members))
        if not present
    ]
    violations += _number_violations(message)
    if violations:
        raise InvalidInput(violations)
    return RunPlan(
        run_id=message.run_id,
        tenant=message.tenant,
        messages=tuple(message_from_proto(turn, f"messages[{position}]") for position, turn in enumerate(message.messages)),
        strategy=message.strategy,
        options=options_from_proto(message.options),
        members=tuple(member_from_proto(member) for member in message.members),
        sampling=sampling_from_proto(message.generation),
        include_candidates=message.include_candidates,
        max_cost_micro_usd=message.max_cost_micro_usd if message.HasField("max_cost_micro_usd") else None,
        response_schema=message.response_schema,
    )
