"""The strategy self_moa: one model answers several times, then a writer makes one answer."""

import pytest

from services.chassis.errors import InvalidInput
from services.models.conversation import Sampling
from services.models.plan import Member, StrategyOptions
from services.models.refinement import Analysis, RefineMethod
from tests.support.ensembles import Bench, JoiningRefiner, options, plan
from tests.support.virtual_time import run_virtual


def test_three_warm_samples_are_fused() -> None:
    """By default the member answers three times at a temperature of 0.7."""
    bench = Bench()
    result = run_virtual(bench.run(plan("a", strategy="self_moa")))
    assert [candidate.candidate_id for candidate in result.candidates] == ["a", "a/2", "a/3"]
    assert [request.sampling.temperature for request in bench.chat.requests] == [0.7] * 3
    assert bench.refiner.methods == [RefineMethod.FUSE]


@pytest.mark.parametrize(
    ("member", "parameters", "calls"),
    [
        (Member(member_id="a", model="a", samples=5), {}, 5),
        (Member(member_id="a", model="a", samples=5), {"samples": 2}, 2),
        (Member(member_id="a", model="a"), {"samples": 8}, 8),
    ],
)
def test_samples_are_the_options_else_the_members(member: Member, parameters: dict[str, object], calls: int) -> None:
    """The option stands above the member's own number."""
    bench = Bench()
    run_virtual(bench.run(plan(members=[member], strategy="self_moa", options=options(parameters=parameters))))
    assert len(bench.chat.requests) == calls


def test_a_temperature_that_is_said_holds() -> None:
    """The member's own and the request's stand above the strategy's."""
    for member, sampling in (
        (Member(member_id="a", model="a", temperature=0.1), Sampling()),
        (Member(member_id="a", model="a"), Sampling(temperature=0.1)),
    ):
        bench = Bench()
        run_virtual(bench.run(plan(members=[member], strategy="self_moa", sampling=sampling)))
        assert {request.sampling.temperature for request in bench.chat.requests} == {0.1}


def test_the_answers_can_be_analysed() -> None:
    """With the option the analysis reaches the caller."""
    bench = Bench(refiner=JoiningRefiner(analysis=Analysis(blind_spots=("much",))))
    result = run_virtual(bench.run(plan("a", strategy="self_moa", options=options(parameters={"analysis": True}))))
    assert result.answer.analysis == Analysis(blind_spots=("much",))


@pytest.mark.parametrize(
    ("models", "given", "field"),
    [
        (("a", "b"), options(), "members"),
        (("a",), StrategyOptions(), "options.refiner"),
        (("a",), options(parameters={"samples": 1}), "options.parameters.samples"),
        (("a",), options(parameters={"samples": 9}), "options.parameters.samples"),
    ],
)
def test_bad_options_are_named(models: tuple[str, ...], given: StrategyOptions, field: str) -> None:
    """Two members, no writer, too few and too many samples are refused."""
    with pytest.raises(InvalidInput) as caught:
        run_virtual(Bench().run(plan(*models, strategy="self_moa", options=given)))
    assert [violation.field for violation in caught.value.violations] == [field]
