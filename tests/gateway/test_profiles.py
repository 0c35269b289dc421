"""What a request puts over a profile."""

from dataclasses import fields, replace

import pytest

from services.gateway.profiles import Profile, options_over, profiles_from, sampling_over
from services.gateway.question import AskedGeneration, AskedHedge, AskedOptions, AskedRefiner, AskedRetry
from services.models.conversation import Sampling
from services.models.plan import HedgePolicy, Member, StrategyOptions
from services.models.refinement import Writer
from services.models.retry_policy import RetryPolicy
from services.models.wire.plans import options_from_proto, options_to_proto
from tests.support.gateways import configured

OPTIONS = StrategyOptions(
    quorum=2,
    straggler_grace_seconds=3.0,
    panel_share=0.5,
    refiner=Writer(model="careful", temperature=0.3, max_output_tokens=9, timeout_seconds=4.0),
    shuffle_seed=11,
    candidate_byte_limit=512,
    hedge=HedgePolicy(delay_seconds=0.5, percentile=95.0, most=3),
    retry=RetryPolicy(max_attempts=4, rate_limited=1, failed=3, timed_out=2),
    early_stop_agreement=0.75,
    parameters={"depth": 1.0},
)
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_output_tokens=100, stop=("END",), seed=3)


def test_a_request_that_sets_nothing_leaves_the_profile_as_it_is() -> None:
    """Every field that is not set is the profile's."""
    assert options_over(OPTIONS, AskedOptions()) == OPTIONS
    assert sampling_over(SAMPLING, AskedGeneration()) == SAMPLING


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"quorum": 1}, {"quorum": 1}),
        ({"straggler_grace": 0.0}, {"straggler_grace_seconds": 0.0}),
        ({"panel_share": 1.0}, {"panel_share": 1.0}),
        ({"refiner": AskedRefiner(model="quick")}, {"refiner": Writer(model="quick")}),
        (
            {"refiner": AskedRefiner(model="quick", temperature=0.0, max_output_tokens=5, timeout=0.5)},
            {"refiner": Writer(model="quick", temperature=0.0, max_output_tokens=5, timeout_seconds=0.5)},
        ),
        ({"shuffle_seed": 0}, {"shuffle_seed": 0}),
        ({"candidate_byte_limit": 256}, {"candidate_byte_limit": 256}),
        ({"hedge": AskedHedge()}, {"hedge": HedgePolicy()}),
        ({"hedge": AskedHedge(delay=5.0)}, {"hedge": HedgePolicy(delay_seconds=5.0)}),
        ({"hedge": AskedHedge(percentile=50.0, max=0)}, {"hedge": HedgePolicy(percentile=50.0, most=0)}),
        ({"retry": AskedRetry()}, {"retry": RetryPolicy()}),
        ({"retry": AskedRetry(max_attempts=1)}, {"retry": RetryPolicy(max_attempts=1)}),
        ({"retry": AskedRetry(rate_limited=5, failed=4, timed_out=3)}, {"retry": RetryPolicy(rate_limited=5, failed=4, timed_out=3)}),
        ({"early_stop_agreement": 1.0}, {"early_stop_agreement": 1.0}),
        ({"parameters": {"width": 2.0}}, {"parameters": {"width": 2.0}}),
    ],
)
def test_each_option_is_put_over_the_profiles_own(asked: dict[str, object], expected: dict[str, object]) -> None:
    """One option changes itself and no other, zero included; a refiner, a policy or parameters replace the profile's as a whole."""
    request = replace(AskedOptions(), **asked)  # type: ignore[arg-type]  # one table for fields of all types
    assert options_over(OPTIONS, request) == replace(OPTIONS, **expected)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("asked", [{"temperature": 0.0}, {"top_p": 0.1}, {"max_output_tokens": 1}, {"stop": ("a", "b")}, {"seed": 0}])
def test_each_generation_parameter_is_put_over_the_profiles_own(asked: dict[str, object]) -> None:
    """One parameter changes itself and no other, zero included."""
    request = replace(AskedGeneration(), **asked)  # type: ignore[arg-type]  # one table for fields of all types
    assert sampling_over(SAMPLING, request) == replace(SAMPLING, **asked)  # type: ignore[arg-type]  # as above


def test_the_tables_above_miss_no_field() -> None:
    """A field that is added to the options or the parameters must be put over the profile's, and tested here."""
    assert {field.name for field in fields(AskedOptions)} == {
        "quorum",
        "straggler_grace",
        "panel_share",
        "refiner",
        "shuffle_seed",
        "candidate_byte_limit",
        "hedge",
        "retry",
        "early_stop_agreement",
        "parameters",
    }
    assert {field.name for field in fields(AskedGeneration)} == {"temperature", "top_p", "max_output_tokens", "stop", "seed"}


def test_profiles_come_from_the_configuration() -> None:
    """Every setting of a profile is taken, and what it leaves out is the strategy's or the provider's own."""
    profiles = profiles_from(
        configured(
            "127.0.0.1:1",
            profiles={
                "whole": {
                    "description": "All there is.",
                    "strategy": "fusion",
                    "members": [
                        {"model": "quick"},
                        {
                            "model": "quick",
                            "samples": 2,
                            "weight": 0.5,
                            "temperature": 0.0,
                            "max_output_tokens": 7,
                            "timeout": "1500ms",
                            "persona": " Be  brief.\n",
                        },
                        {"model": "careful", "id": "mine"},
                    ],
                    "refiner": {"model": "careful", "temperature": 0.3, "max_output_tokens": 9, "timeout": "4s"},
                    "quorum": 2,
                    "straggler_grace": "3s",
                    "panel_share": 0.5,
                    "shuffle_seed": 11,
                    "candidate_byte_limit": 512,
                    "hedge": {"delay": "500ms", "percentile": 95, "max": 3},
                    "retry": {"max_attempts": 4, "rate_limited": 1, "failed": 3, "timed_out": 2},
                    "early_stop_agreement": 0.75,
                    "max_cost": 0.25,
                    "parameters": {"layers": 2, "judges": ["quick", "careful"], "deep": [{"er": None}]},
                    "generation": {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 100, "stop": ["END"], "seed": 3},
                },
                "bare": {"strategy": "single", "members": [{"model": "quick"}]},
            },
        )
    )
    assert profiles["whole"] == Profile(
        name="whole",
        description="All there is.",
        strategy="fusion",
        members=(
            Member(member_id="quick", model="quick"),
            Member(
                member_id="quick#2",
                model="quick",
                samples=2,
                weight=0.5,
                temperature=0.0,
                max_output_tokens=7,
                timeout_seconds=1.5,
                persona=" Be  brief.\n",
            ),
            Member(member_id="mine", model="careful"),
        ),
        options=replace(OPTIONS, parameters={"layers": 2, "judges": ["quick", "careful"], "deep": [{"er": None}]}),
        sampling=SAMPLING,
        max_cost_micro_usd=250_000,
    )
    assert profiles["bare"] == Profile(name="bare", strategy="single", members=(Member(member_id="quick", model="quick"),))


def test_a_policy_that_is_named_and_no_more_is_the_default_one() -> None:
    """A profile that says only that calls are hedged, or made again, gets what a request would get that says no more."""
    members = [{"model": "quick"}]
    profiles = profiles_from(configured("127.0.0.1:1", profiles={"p": {"strategy": "single", "members": members, "hedge": {}, "retry": {"failed": 3}}}))
    assert profiles["p"].options == StrategyOptions(hedge=HedgePolicy(), retry=RetryPolicy(failed=3))


def test_parameters_of_a_profile_can_be_sent() -> None:
    """However deep they are and whatever the configuration made of them, the wire takes them, and they come out of it as they were."""
    parameters = {"a": [1, [2.5, {"b": None, "c": [True, "x"]}]], "d": {}}
    section = {"strategy": "single", "members": [{"model": "quick"}], "parameters": parameters}
    sent = options_to_proto(profiles_from(configured("127.0.0.1:1", profiles={"p": section}))["p"].options)
    assert options_from_proto(sent).parameters == parameters
