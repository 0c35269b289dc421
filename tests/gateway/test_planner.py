"""From a question to a plan."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import InvalidInput, NotFound
from services.gateway.planner import Planner
from services.gateway.profiles import Profile
from services.gateway.question import AskedGeneration, AskedHedge, AskedMember, AskedMessage, AskedOptions, AskedRefiner, AskedRetry, Question
from services.gateway.text_rules import control_position
from services.models.conversation import Message, Role, Sampling
from services.models.plan import HedgePolicy, Member, RunPlan, StrategyOptions
from services.models.refinement import Writer
from services.models.retry_policy import RetryPolicy

PANEL = (Member(member_id="careful", model="careful", temperature=0.1), Member(member_id="quick", model="quick", samples=2))
DEFAULT = Profile(
    name="default",
    strategy="fusion",
    members=PANEL,
    options=StrategyOptions(quorum=2, refiner=Writer(model="careful")),
    sampling=Sampling(temperature=0.7, max_output_tokens=100),
)
PLAIN = Profile(name="plain", strategy="single", members=PANEL[:1])
LAYERED = Profile(
    name="layered",
    strategy="moa",
    members=PANEL,
    options=StrategyOptions(quorum=3, parameters={"layers": 3}, panel_share=0.9),
    max_cost_micro_usd=700,
)
PLANNER = Planner({"default": DEFAULT, "plain": PLAIN, "layered": LAYERED}, ["careful", "quick"], lambda: "made-id")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: control_position(text) is None)


def refused(question: Question, at: str = "") -> list[str]:
    """Return the fields that are refused."""
    with pytest.raises(InvalidInput) as refusal:
        PLANNER.order(question, at=at)
    return [violation.field for violation in refusal.value.violations]


def test_a_bare_prompt_takes_all_from_the_default_profile() -> None:
    """What a request does not say is the profile's, and the run gets an id."""
    assert PLANNER.order(Question(prompt="Why?")).plan == RunPlan(
        run_id="made-id",
        messages=(Message(role=Role.USER, text="Why?"),),
        strategy="fusion",
        members=PANEL,
        options=DEFAULT.options,
        sampling=DEFAULT.sampling,
    )


def test_a_request_stands_over_its_profile_field_by_field() -> None:
    """What a request says replaces that, and only that, of the profile it names."""
    question = Question(
        request_id="mine",
        profile="plain",
        prompt="Why?",
        system="Be brief.",
        strategy="fusion",
        options=AskedOptions(panel_share=0.9),
        members=(AskedMember(model="quick"), AskedMember(model="quick", temperature=1.0)),
        generation=AskedGeneration(seed=5),
        include_candidates=True,
        labels={"team": "a"},
        max_cost_micro_usd=1,
        response_schema='{"type": "object"}',
    )
    assert PLANNER.order(question).plan == RunPlan(
        run_id="mine",
        messages=(Message(role=Role.SYSTEM, text="Be brief."), Message(role=Role.USER, text="Why?")),
        strategy="fusion",
        members=(Member(member_id="quick", model="quick"), Member(member_id="quick#2", model="quick", temperature=1.0)),
        options=StrategyOptions(panel_share=0.9),
        sampling=Sampling(seed=5),
        include_candidates=True,
        max_cost_micro_usd=1,
        response_schema='{"type": "object"}',
    )


def test_policies_of_a_request_reach_the_plan() -> None:
    """Hedges, retries and the agreement that ends a panel are carried as they were asked for."""
    options = AskedOptions(hedge=AskedHedge(delay=0.25, percentile=90.0, max=2), retry=AskedRetry(max_attempts=3, failed=1), early_stop_agreement=0.8)
    plan = PLANNER.order(Question(prompt="Why?", options=options)).plan
    assert plan.options == StrategyOptions(
        quorum=2,
        refiner=Writer(model="careful"),
        hedge=HedgePolicy(delay_seconds=0.25, percentile=90.0, most=2),
        retry=RetryPolicy(max_attempts=3, failed=1),
        early_stop_agreement=0.8,
    )


def test_a_profiles_bound_on_the_cost_holds_where_the_request_sets_none() -> None:
    """A request may set a lower or a higher one; a profile without one sets none."""
    assert [PLANNER.order(Question(prompt="Why?", profile="layered", max_cost_micro_usd=asked)).plan.max_cost_micro_usd for asked in (None, 5, 900)] == [
        700,
        5,
        900,
    ]
    assert PLANNER.order(Question(prompt="Why?")).plan.max_cost_micro_usd is None


@pytest.mark.parametrize(
    ("strategy", "asked", "parameters"),
    [("", {}, {"layers": 3}), ("moa", {}, {"layers": 3}), ("fusion", {}, {}), ("fusion", {"x": 1.0}, {"x": 1.0}), ("", {"x": 1.0}, {"x": 1.0})],
)
def test_a_profiles_parameters_are_for_its_own_strategy(strategy: str, asked: dict[str, object], parameters: dict[str, object]) -> None:
    """A request that takes another strategy is not refused for parameters that it never gave; the other options stay."""
    options = PLANNER.order(Question(prompt="Why?", profile="layered", strategy=strategy, options=AskedOptions(parameters=asked))).plan.options
    assert (options.parameters, options.panel_share) == (parameters, 0.9)


@pytest.mark.parametrize(("strategy", "asked", "quorum"), [("", None, 3), ("moa", None, 3), ("single", None, None), ("single", 1, 1), ("moa", 2, 2)])
def test_a_profiles_quorum_is_for_its_own_strategy(strategy: str, asked: int | None, quorum: int | None) -> None:
    """Another strategy takes its own, unless the request says one."""
    question = Question(prompt="Why?", profile="layered", strategy=strategy, options=AskedOptions(quorum=asked))
    assert PLANNER.order(question).plan.options.quorum == quorum


def test_ids_are_made_anew_for_each_request() -> None:
    """Without an id of the caller's each run gets one of its own, of 32 hexadecimal digits."""
    planner = Planner({"default": DEFAULT}, ["careful", "quick"])
    made = {planner.order(Question(prompt="Why?")).plan.run_id for _ in range(10)}
    assert len(made) == 10
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in made)


@given(TEXTS, TEXTS, TEXTS)
def test_texts_are_never_altered(prompt: str, system: str, turn: str) -> None:
    """Every valid text reaches the plan as it was written."""
    assert [message.text for message in PLANNER.order(Question(prompt=prompt, system=system)).plan.messages] == [system, prompt]
    turns = (AskedMessage(role="system", text=system), AskedMessage(role="assistant", text=turn), AskedMessage(text=prompt))
    assert PLANNER.order(Question(messages=turns)).plan.messages == (
        Message(role=Role.SYSTEM, text=system),
        Message(role=Role.ASSISTANT, text=turn),
        Message(role=Role.USER, text=prompt),
    )


def test_violations_are_told_at_their_place_in_the_request() -> None:
    """A question that stands inside another message has its paths prefixed."""
    assert refused(Question(), "generate.") == ["generate.prompt"]


def test_violations_of_the_panel_are_told_with_those_of_the_fields() -> None:
    """A bad temperature does not hide a duplicate id, too many calls or a quorum out of reach."""
    members = tuple(AskedMember(id="a", model="quick", samples=5, temperature=3.0) for _ in range(2))
    question = Question(prompt="Why?", members=members, options=AskedOptions(quorum=11))
    assert refused(question) == ["members[0].temperature", "members[1].temperature", "members", "members[1].id", "options.quorum"]


def test_at_most_32_violations_are_told() -> None:
    """The error fits into the trailers of a call, whatever was sent."""
    assert refused(Question(messages=(AskedMessage(text="\0"),) * 40)) == [f"messages[{index}].text" for index in range(32)]


def test_nine_members_are_refused() -> None:
    """A ninth member is refused, not dropped, and told once."""
    assert refused(Question(prompt="Why?", members=(AskedMember(model="quick"),) * 9)) == ["members"]


@pytest.mark.parametrize(("members", "most"), [((), 3), ((AskedMember(model="quick", samples=2),), 2)])
def test_a_quorum_beyond_the_panel_is_refused(members: tuple[AskedMember, ...], most: int) -> None:
    """As many answers as there are calls may be asked for, one more not, whether the panel is the request's or the profile's."""
    assert PLANNER.order(Question(prompt="Why?", members=members, options=AskedOptions(quorum=most))).plan.options.quorum == most
    assert refused(Question(prompt="Why?", members=members, options=AskedOptions(quorum=most + 1))) == ["options.quorum"]


def test_a_quorum_is_not_held_against_a_panel_that_cannot_be_counted() -> None:
    """Where samples are out of range, that alone is told."""
    assert refused(Question(prompt="Why?", members=(AskedMember(model="quick", samples=-1),), options=AskedOptions(quorum=2))) == ["members[0].samples"]


def test_a_profiles_quorum_is_lowered_to_a_smaller_panel() -> None:
    """A request that seats one member is not refused for a quorum that it never asked for; other options stay."""
    plan = PLANNER.order(Question(prompt="Why?", members=(AskedMember(model="quick"),))).plan
    assert (plan.options.quorum, plan.options.refiner) == (1, Writer(model="careful"))


@pytest.mark.parametrize(
    ("question", "kind", "name"),
    [
        (Question(prompt="Why?", profile="nope"), "profile", "nope"),
        (Question(prompt="Why?", members=(AskedMember(model="quick"), AskedMember(model="gone"), AskedMember(model="lost"))), "model", "gone"),
        (Question(prompt="Why?", options=AskedOptions(refiner=AskedRefiner(model="gone"))), "model", "gone"),
    ],
)
def test_what_does_not_exist_is_not_found(question: Question, kind: str, name: str) -> None:
    """The first profile or model that is not configured is named."""
    with pytest.raises(NotFound) as refusal:
        PLANNER.order(question)
    assert (refusal.value.kind, refusal.value.name) == (kind, name)


def test_violations_come_before_what_is_not_found() -> None:
    """An unknown profile does not hide bad fields."""
    assert refused(Question(prompt="Why?", profile="nope", generation=AskedGeneration(temperature=math.nan))) == ["generation.temperature"]


def test_without_a_default_profile_one_must_be_named() -> None:
    """Where no profile is called "default", a request that names none is told so."""
    with pytest.raises(NotFound) as refusal:
        Planner({"plain": PLAIN}, ["careful"]).order(Question(prompt="Why?"))
    assert (refusal.value.kind, refusal.value.name) == ("profile", "default")


def test_a_strategy_that_decides_its_own_samples_is_asked_for_any_quorum() -> None:
    """How often self_moa asks its one member is not known here, so neither is a quorum refused nor the profile's lowered."""
    seat = (Member(member_id="careful", model="careful"),)
    options = StrategyOptions(quorum=3, refiner=Writer(model="careful"), parameters={"samples": 5})
    planner = Planner({"default": Profile(name="default", strategy="self_moa", members=seat, options=options)}, ["careful", "quick"])
    assert planner.order(Question(prompt="Why?", options=AskedOptions(quorum=4))).plan.options.quorum == 4
    assert planner.order(Question(prompt="Why?", members=(AskedMember(model="quick"),))).plan.options.quorum == 3
