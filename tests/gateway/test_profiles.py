"""What a request puts over a profile."""

from dataclasses import fields, replace

import pytest

from services.gateway.profiles import Profile, options_over, profiles_from, sampling_over
from services.gateway.question import AskedGeneration, AskedOptions, AskedRefiner
from services.models.conversation import Sampling
from services.models.plan import Member, StrategyOptions
from services.models.refinement import Writer
from tests.support.gateways import configured

OPTIONS = StrategyOptions(
    quorum=2,
    straggler_grace_seconds=3.0,
    panel_share=0.5,
    refiner=Writer(model="careful", temperature=0.3, max_output_tokens=9, timeout_seconds=4.0),
    shuffle_seed=11,
    candidate_byte_limit=512,
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
        ({"parameters": {"width": 2.0}}, {"parameters": {"width": 2.0}}),
    ],
)
def test_each_option_is_put_over_the_profiles_own(asked: dict[str, object], expected: dict[str, object]) -> None:
    """One option changes itself and no other, zero included; a refiner or parameters replace the profile's as a whole."""
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
                    "candidate_byte_limit": 512,
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
        options=replace(OPTIONS, shuffle_seed=None, parameters={}),
        sampling=SAMPLING,
    )
    assert profiles["bare"] == Profile(name="bare", strategy="single", members=(Member(member_id="quick", model="quick"),))
