"""A profile: a named ensemble that a request builds upon, field by field."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.chassis.configuration import Configuration, HedgeSection, ProfileSection, RefinerMemberSection, RetrySection, plain_parameters
from services.gateway.caller import Caller
from services.gateway.panel import seated
from services.gateway.question import AskedGeneration, AskedHedge, AskedMember, AskedOptions, AskedRefiner, AskedRetry
from services.models.conversation import Sampling
from services.models.plan import JUDGES, HedgePolicy, Member, StrategyOptions
from services.models.refinement import Writer
from services.models.retry_policy import RetryPolicy

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A configured ensemble."""

    name: str
    description: str = ""
    strategy: str
    members: tuple[Member, ...]
    options: StrategyOptions = field(default_factory=StrategyOptions)
    sampling: Sampling = field(default_factory=Sampling)
    max_cost_micro_usd: int | None = None
    """Most that a run may cost, where the request says nothing of it; None for no bound."""
    cache_seconds: float | None = None
    """How long an answer serves equal requests; None caches none."""


def named_models(panel: Sequence[Member], options: StrategyOptions) -> tuple[str, ...]:
    """Return the models that sit in a panel or write its answer."""
    return (*(member.model for member in panel), *((options.refiner.model,) if options.refiner else ()))


def judges_of(options: StrategyOptions) -> Iterator[str]:
    """Yield the models that parameters name."""
    judges = options.parameters.get(JUDGES)
    yield from (judge for judge in judges if isinstance(judge, str)) if isinstance(judges, list | tuple) else ()


def usable(profile: Profile, caller: Caller) -> bool:
    """Whether the caller may use the profile as it stands, with every model that it calls; of others he is not told."""
    models = (*named_models(profile.members, profile.options), *judges_of(profile.options))
    return caller.may_use_profile(profile.name) and all(map(caller.may_call, models))


def options_over(options: StrategyOptions, asked: AskedOptions) -> StrategyOptions:
    """Return the options with every one that the request sets put over them.

    A refiner, a hedge policy and a retry policy are one field each: they are replaced as a whole, and what the request leaves out of one is the default.
    """
    refiner = asked.refiner
    return StrategyOptions(
        quorum=_set(asked.quorum, options.quorum),
        straggler_grace_seconds=_set(asked.straggler_grace, options.straggler_grace_seconds),
        panel_share=_set(asked.panel_share, options.panel_share),
        refiner=options.refiner
        if refiner is None
        else Writer(model=refiner.model, temperature=refiner.temperature, max_output_tokens=refiner.max_output_tokens, timeout_seconds=refiner.timeout),
        shuffle_seed=_set(asked.shuffle_seed, options.shuffle_seed),
        candidate_byte_limit=_set(asked.candidate_byte_limit, options.candidate_byte_limit),
        hedge=options.hedge if asked.hedge is None else _hedge_policy(asked.hedge),
        retry=options.retry if asked.retry is None else _retry_policy(asked.retry),
        early_stop_agreement=_set(asked.early_stop_agreement, options.early_stop_agreement),
        parameters=asked.parameters or options.parameters,
    )


def _hedge_policy(asked: AskedHedge) -> HedgePolicy:
    return HedgePolicy(delay_seconds=_set(asked.delay, HedgePolicy().delay_seconds), percentile=asked.percentile, most=asked.max)


def _retry_policy(asked: AskedRetry) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=_set(asked.max_attempts, RetryPolicy().max_attempts),
        rate_limited=asked.rate_limited,
        failed=asked.failed,
        timed_out=asked.timed_out,
    )


def _set(asked: Value | None, otherwise: Value) -> Value:
    return otherwise if asked is None else asked


def sampling_over(sampling: Sampling, asked: AskedGeneration) -> Sampling:
    """Return the parameters with every one that the request sets put over them."""
    return sampling.overlaid(
        Sampling(temperature=asked.temperature, top_p=asked.top_p, max_output_tokens=asked.max_output_tokens, stop=asked.stop, seed=asked.seed)
    )


def profiles_from(configuration: Configuration) -> Mapping[str, Profile]:
    """Return the configured profiles by name, each put together as a request would be."""
    return {
        name: Profile(
            name=name,
            description=section.description,
            strategy=section.strategy,
            members=seated(
                [
                    AskedMember(
                        id=member.id or "",
                        model=member.model,
                        samples=member.samples,
                        weight=member.weight,
                        temperature=member.temperature,
                        max_output_tokens=member.max_output_tokens,
                        timeout=member.timeout_seconds,
                        persona=member.persona,
                    )
                    for member in section.members
                ]
            ),
            options=options_over(StrategyOptions(), _options(section)),
            sampling=Sampling(
                temperature=section.generation.temperature,
                top_p=section.generation.top_p,
                max_output_tokens=section.generation.max_output_tokens,
                stop=section.generation.stop,
                seed=section.generation.seed,
            ),
            max_cost_micro_usd=section.max_cost_micro_usd,
            cache_seconds=None if section.cache is None else section.cache.ttl_seconds,
        )
        for name, section in configuration.profiles.items()
    }


def _options(section: ProfileSection) -> AskedOptions:
    return AskedOptions(
        quorum=section.quorum,
        straggler_grace=section.straggler_grace_seconds,
        panel_share=section.panel_share,
        refiner=_refiner(section.refiner),
        shuffle_seed=section.shuffle_seed,
        candidate_byte_limit=section.candidate_byte_limit,
        hedge=_hedge(section.hedge),
        retry=_retry(section.retry),
        early_stop_agreement=section.early_stop_agreement,
        parameters=plain_parameters(section.parameters),
    )


def _refiner(section: RefinerMemberSection | None) -> AskedRefiner | None:
    if section is None:
        return None
    return AskedRefiner(model=section.model, temperature=section.temperature, max_output_tokens=section.max_output_tokens, timeout=section.timeout_seconds)


def _hedge(section: HedgeSection | None) -> AskedHedge | None:
    return None if section is None else AskedHedge(delay=section.delay_seconds, percentile=section.percentile, max=section.most)


def _retry(section: RetrySection | None) -> AskedRetry | None:
    if section is None:
        return None
    return AskedRetry(max_attempts=section.max_attempts, rate_limited=section.rate_limited, failed=section.failed, timed_out=section.timed_out)
