"""What a caller may have planned for him, and what he learns of the rest."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import EnsembleError, NotAllowed, NotFound
from services.gateway.caller import ANYONE, Caller
from services.gateway.planner import Planner
from services.gateway.profiles import Profile, usable
from services.gateway.question import AskedMember, AskedOptions, AskedRefiner, Question
from services.models.plan import Member, RunPlan, StrategyOptions
from services.models.refinement import Writer
from services.orchestrator.parameters import Parameters
from services.orchestrator.registry import STRATEGIES

MODELS = ("careful", "quick", "judge")


def _profile(name: str, *models: str, refiner: str = "", judges: tuple[str, ...] = (), strategy: str = "fusion", quorum: int | None = None) -> Profile:
    parameters: dict[str, object] = {"judges": list(judges)} if judges else {}
    return Profile(
        name=name,
        strategy=strategy,
        members=tuple(Member(member_id=model, model=model) for model in models),
        options=StrategyOptions(refiner=Writer(model=refiner) if refiner else None, parameters=parameters, quorum=quorum),
    )


PROFILES = {
    one.name: one
    for one in (
        _profile("default", "careful", "quick", refiner="careful"),
        _profile("plain", "quick", strategy="single"),
        _profile("ranked", "quick", refiner="quick", judges=("judge",), strategy="rank"),
        _profile("samples", "quick", refiner="quick", strategy="self_moa"),
    )
}
PLANNER = Planner(PROFILES, MODELS, lambda: "id")
QUICK = Caller(tenant="t", models=frozenset({"quick"}))
PLAIN = Caller(tenant="t", profiles=frozenset({"plain"}))


def plan(caller: Caller, **fields: object) -> RunPlan:
    """Plan a question of the caller's."""
    return PLANNER.order(Question(prompt="Why?", **fields), caller).plan  # type: ignore[arg-type]  # As they stand in the question.


def refusal(caller: Caller, **fields: object) -> EnsembleError:
    """Return what a question is refused with."""
    with pytest.raises(EnsembleError) as raised:
        plan(caller, **fields)
    return raised.value


def test_a_plan_knows_its_tenant() -> None:
    """By whom the limiter then decides; a gateway that asks nobody names none."""
    assert plan(QUICK, profile="plain").tenant == "t"
    assert plan(ANYONE).tenant == ""


def test_no_name_means_the_profile_default_for_permission_too() -> None:
    """Who may not use it must name another one."""
    assert isinstance(refusal(PLAIN), NotAllowed)
    assert isinstance(refusal(PLAIN, profile="default"), NotAllowed)
    assert plan(PLAIN, profile="plain").strategy == "single"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"profile": "ranked"},
        {"profile": "plain", "members": (AskedMember(model="quick"), AskedMember(model="careful"))},
        {"profile": "plain", "members": (AskedMember(model="gone"),)},
        {"profile": "plain", "options": AskedOptions(refiner=AskedRefiner(model="careful"))},
        {"profile": "plain", "options": AskedOptions(refiner=AskedRefiner(model="gone"))},
        {"profile": "plain", "strategy": "rank", "options": AskedOptions(parameters={"judges": ["quick", "judge"]})},
        {"profile": "plain", "strategy": "rank", "options": AskedOptions(parameters={"judges": ["gone"]})},
        {"members": (AskedMember(model="quick"),)},
    ],
)
def test_every_model_that_would_be_called_must_be_allowed(fields: dict[str, object]) -> None:
    """Whoever names it: panel, refiner and judges, of the request and of the profile; one that does not exist reads as one that is not allowed."""
    assert str(refusal(QUICK, **fields)) == str(refusal(QUICK))
    assert isinstance(refusal(QUICK, **fields), NotAllowed)


def test_what_the_request_replaces_is_not_called() -> None:
    """A profile whose models are all replaced is one that may be used."""
    members, options = (AskedMember(model="quick"),), AskedOptions(refiner=AskedRefiner(model="quick"))
    assert plan(QUICK, members=members, options=options).options.refiner == Writer(model="quick")
    assert plan(QUICK, profile="ranked", strategy="fusion").options.parameters == {}
    assert plan(QUICK, profile="ranked", options=AskedOptions(parameters={"judges": ["quick"]})).options.parameters == {"judges": ["quick"]}


@given(quorum=st.integers(1, 20), strategy=st.sampled_from(["", "fusion", "self_moa", "single"]), name=st.sampled_from([*PROFILES, "", "gone"]))
def test_nobody_learns_of_a_profile_by_asking(quorum: int, strategy: str, name: str) -> None:
    """What is said of one that may not be used is the same whether or not it exists, whatever else is wrong."""
    caller = Caller(tenant="t", profiles=frozenset({"other"}))
    fields = {"strategy": strategy, "options": AskedOptions(quorum=quorum)}
    told, unknown = refusal(caller, profile=name, **fields), refusal(caller, profile="no such", **fields)
    assert (type(told), str(told)) == (type(unknown), str(unknown))


def test_hints_name_what_may_be_used_and_nothing_else() -> None:
    """Profiles that call what may not be called are not named either; who may use all is told all."""
    assert str(refusal(QUICK, profile="gone")).endswith("known are plain, samples")
    assert str(refusal(ANYONE, profile="gone")).endswith("known are default, plain, ranked, samples")
    # A tenant that was read again may name models which this gateway, started before, does not know.
    newer = Caller(tenant="t", models=frozenset({"quick", "newer"}))
    for fields in (
        {"members": (AskedMember(model="newer"),)},
        {"options": AskedOptions(refiner=AskedRefiner(model="newer"))},
        {"options": AskedOptions(parameters={"judges": ["newer"]})},
    ):
        told = refusal(newer, profile="plain", **fields)
        assert isinstance(told, NotFound)
        assert str(told).endswith("known are quick")


def test_whether_a_judge_exists_is_the_strategys_to_say_to_whom_may_call_all() -> None:
    """It may be no judge at all."""
    options = AskedOptions(parameters={"judges": ["gone"]})
    assert plan(ANYONE, strategy="single", options=options).options.parameters == {"judges": ["gone"]}


@given(st.frozensets(st.sampled_from(MODELS)) | st.none(), st.frozensets(st.sampled_from([*PROFILES])) | st.none(), st.sampled_from([*PROFILES]))
def test_what_is_usable_is_what_is_planned(models: frozenset[str] | None, profiles: frozenset[str] | None, name: str) -> None:
    """A profile is listed exactly for those who may ask it as it stands."""
    caller = Caller(tenant="t", models=models, profiles=profiles)
    try:
        plan(caller, profile=name)
    except NotAllowed:
        assert not usable(PROFILES[name], caller)
    else:
        assert usable(PROFILES[name], caller)


def _named_by(parameters: type[Parameters], model: str) -> list[tuple[str, object]]:
    """Return every parameter, with a value, that takes a model's name in it: as text, or as one of a list."""
    found: list[tuple[str, object]] = []
    for name, shape in product(parameters.model_fields, (model, [model])):
        try:
            parameters.model_validate({name: shape})
        except ValueError:
            continue
        found.append((name, shape))
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_judges_are_the_one_parameter_that_names_models(strategy: str) -> None:
    """A strategy with another one would have models called that nobody was asked about: it must be added where judges are looked for."""
    kind = STRATEGIES[strategy].parameters
    # Free text of vote alone: where in an answer to look, which names nothing that is called.
    free = {"vote": {"pattern", "pointer"}}.get(strategy, set())
    assert {name for name, _ in _named_by(kind, "some-model")} - free == ({"judges"} if "judges" in kind.model_fields else set())
    seats = tuple(Member(member_id=f"m{number}", model=f"m{number}") for number in range(3))
    for name, value in _named_by(kind, "some-model"):
        asked = RunPlan(run_id="id", messages=(), strategy=strategy, members=seats, options=StrategyOptions(parameters={name: value}))
        called = STRATEGIES[strategy].judges(replace(asked))
        assert called == (("some-model",) if name == "judges" else ())
