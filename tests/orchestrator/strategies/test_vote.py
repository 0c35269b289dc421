"""The strategy vote: extracted answers are counted by weight; what cannot change any more is not waited for."""

import asyncio
import itertools
import math
import random
from collections import Counter

import pytest

from services.chassis.errors import InvalidInput
from services.models.outcomes import Outcome
from services.models.plan import Member, StrategyOptions
from services.models.provenance import Degradation, Method, VoteCount
from services.models.refinement import RefineMethod
from services.orchestrator.ensemble import RunResult
from services.orchestrator.events import AnswerDelta
from tests.support.ensembles import Bench, options, plan
from tests.support.scripted_chat import FAILED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

NUMBERS: dict[str, object] = {"extract": "last_number"}


def _vote(bench: Bench, *models: str, members: list[Member] | None = None, listen: bool = False, **given: object) -> RunResult:
    fields = {"parameters": NUMBERS, "quorum": None, **given}
    return run_virtual(bench.run(plan(*models, members=members, strategy="vote", options=options(**fields)), seconds=100, listen=listen))


def _bench(**texts: str) -> Bench:
    return Bench(chat=ScriptedChat(replies={name: Reply(text=text) for name, text in texts.items()}))


def test_the_majority_wins_and_its_first_text_is_the_answer() -> None:
    """Two of three come to 12 in different words; the vote stands in the provenance, the agreement on the receipt, and no refiner is asked."""
    bench = _bench(a="I get 7", b="It is 12.", c="so 12.0")
    result = _vote(bench, "a", "b", "c", quorum=3, listen=True)
    assert (result.answer.text, result.answer.provenance.method) == ("It is 12.", Method.VOTED)
    assert result.answer.provenance.candidate_ids == ("b", "c")
    assert result.answer.provenance.verdict is not None
    assert result.answer.provenance.verdict.votes == (
        VoteCount(value="12", weight=2.0, candidate_ids=("b", "c")),
        VoteCount(value="7", weight=1.0, candidate_ids=("a",)),
    )
    assert not result.answer.provenance.verdict.agreed
    assert result.receipt.agreement == pytest.approx(2 / 3)
    assert bench.refiner.asked == []
    assert [event.text for event in bench.events if isinstance(event, AnswerDelta)] == ["It is 12."]


def test_weights_outvote_heads() -> None:
    """One heavy member outweighs two light ones, and of the winners the heaviest speaks."""
    members = [Member(member_id="a", model="a"), Member(member_id="b", model="b"), Member(member_id="c", model="c", weight=2.5)]
    result = _vote(_bench(a="7", b="7", c="12"), members=members, quorum=3)
    assert result.answer.text == "12"
    members = [Member(member_id="a", model="a"), Member(member_id="b", model="b", weight=2.0), Member(member_id="c", model="c")]
    assert _vote(_bench(a="first 7", b="heavy 7", c="12"), members=members, quorum=3).answer.text == "heavy 7"


def test_ties_go_to_the_first_of_the_panel() -> None:
    """Of as many votes the answer that stands first wins, each time."""
    assert _vote(_bench(a="7", b="12"), "a", "b").answer.text == "7"
    assert _vote(_bench(a="12", b="7"), "a", "b").answer.text == "12"


def test_a_decided_vote_waits_for_nobody() -> None:
    """Two of three agree: the third cannot change anything and is cancelled without any grace; where they differ it is waited for."""
    slow = Reply(text="7", after_seconds=5)
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text="12"), "b": Reply(text="12"), "c": slow}))
    result = _vote(bench, "a", "b", "c")
    assert result.receipt.latency_seconds == pytest.approx(0.0)
    assert (result.candidates[2].call.outcome, result.candidates[2].call.reason) == (Outcome.STRAGGLER_CANCELLED, "decided")
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text="12"), "b": Reply(text="7"), "c": slow}))
    result = _vote(bench, "a", "b", "c")
    assert result.receipt.latency_seconds == pytest.approx(5.0)
    assert result.answer.text == "7"


def test_stopping_early_never_changes_the_winner() -> None:
    """Whatever three members say and in whatever order they come, the winner is the one that all three votes together would have."""
    for values in itertools.product(("1", "2", "3"), repeat=3):
        for order in itertools.permutations((0.0, 1.0, 2.0)):
            replies = {name: Reply(text=value, after_seconds=when) for name, value, when in zip("abc", values, order, strict=True)}
            result = _vote(Bench(chat=ScriptedChat(replies=replies)), "a", "b", "c", straggler_grace_seconds=50.0)
            most = max(Counter(values).values())
            assert result.answer.text == next(value for value in values if values.count(value) == most)


def test_a_vote_that_one_decides_is_a_vote() -> None:
    """With a quorum of one a member heavier than the rest together decides alone; that is no sole survivor."""
    members = [Member(member_id="a", model="a", weight=5.0), Member(member_id="b", model="b"), Member(member_id="c", model="c")]
    slow = Reply(text="7", after_seconds=9)
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text="42"), "b": slow, "c": slow}))
    result = _vote(bench, members=members, quorum=1)
    assert (result.answer.text, result.answer.provenance.method, result.answer.degradations) == ("42", Method.VOTED, ())


def test_enough_agreement_ends_a_vote_early() -> None:
    """Two of five agree wholly: with a bound on the agreement that is enough, without one the others could still outvote them."""
    replies = {"a": Reply(text="12"), "b": Reply(text="12"), "c": Reply(text="7", after_seconds=5), "d": Reply(text="7", after_seconds=5)}
    replies["e"] = Reply(text="7", after_seconds=5)
    for bound, answer in ((0.9, "12"), (None, "7")):
        bench = Bench(models="abcdew", chat=ScriptedChat(replies=replies))
        assert _vote(bench, *"abcde", quorum=2, early_stop_agreement=bound).answer.text == answer


def test_nothing_extracted_falls_back() -> None:
    """Where no text holds a number the best candidate by weight and order is the answer, degraded; one that abstains does not count."""
    result = _vote(_bench(a="many", b="a few"), "a", "b")
    assert (result.answer.text, result.answer.degradations) == ("many", (Degradation.NOTHING_EXTRACTED,))
    result = _vote(_bench(a="many", b="3"), "a", "b")
    assert (result.answer.text, result.answer.degradations) == ("3", ())


def test_a_sole_survivor_passes() -> None:
    """One answer needs no vote, and says that it is alone."""
    for parameters in (NUMBERS, {"universal": True}):
        bench = Bench(chat=ScriptedChat(replies={"a": FAILED, "b": Reply(text="3")}))
        result = _vote(bench, "a", "b", quorum=1, parameters=parameters)
        assert result.answer.degradations == (Degradation.SOLE_SURVIVOR,)
        assert bench.refiner.asked == []


@pytest.mark.parametrize(
    ("parameters", "texts", "winner"),
    [
        ({}, ("Paris.", "  paris", "Lyon"), "Paris."),
        ({"normalise": []}, ("Paris", "paris", "paris"), "paris"),
        ({"extract": "regex", "pattern": r"answer: (\w+)"}, ("answer: A", "answer: b", "the answer: B"), "answer: b"),
        (
            {"extract": "json_pointer", "pointer": "/city"},
            ('{"city": "Lyon"}', '{"city": "Paris"}', '```json\n{"city":"Paris","n":1}\n```'),
            '{"city": "Paris"}',
        ),
    ],
)
def test_extractors(parameters: dict[str, object], texts: tuple[str, str, str], winner: str) -> None:
    """Whole texts are compared without case and punctuation unless told otherwise; patterns and pointers find their part."""
    assert _vote(_bench(**dict(zip("abc", texts, strict=True))), "a", "b", "c", quorum=3, parameters=parameters).answer.text == winner


def test_universal_asks_a_judge() -> None:
    """The refiner picks the most consistent answer, in as many passes as were asked for."""
    bench = _bench(a="It is Paris", b="Paris, surely", c="Lyon")
    result = _vote(bench, "a", "b", "c", parameters={"universal": True, "passes": 2})
    refinement = bench.refiner.asked[0][0]
    assert (refinement.method, refinement.passes) == (RefineMethod.CONSISTENT, 2)
    assert result.answer.text == "Lyon"


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ({"extract": "regex"}, ["pattern"]),
        ({"extract": "regex", "pattern": "("}, ["pattern"]),
        ({"extract": "regex", "pattern": "(a)(b)"}, ["pattern"]),
        ({"extract": "json_pointer", "pointer": "city"}, ["pointer"]),
        ({"extract": "guess"}, ["extract"]),
        ({"normalise": ["case", "mood"]}, ["normalise[1]"]),
        ({"universal": True, "extract": "last_number", "pattern": "x"}, ["extract", "pattern"]),
    ],
)
def test_bad_options_are_named(parameters: dict[str, object], fields: list[str]) -> None:
    """Whatever cannot extract is refused by its path before anything is asked."""
    bench = Bench()
    with pytest.raises(InvalidInput) as caught:
        _vote(bench, "a", "b", parameters=parameters)
    assert [violation.field for violation in caught.value.violations] == [f"options.parameters.{field}" for field in fields]
    assert bench.permits.requests == []


def test_universal_needs_a_judge() -> None:
    """Counting needs no refiner; universal does."""
    universal = StrategyOptions(parameters={"universal": True})
    with pytest.raises(InvalidInput) as caught:
        run_virtual(Bench().run(plan("a", "b", strategy="vote", options=universal)))
    assert [violation.field for violation in caught.value.violations] == ["options.refiner"]
    assert run_virtual(Bench().run(plan("a", "b", strategy="vote", options=StrategyOptions()))).answer.text == "an answer"


def test_slow_patterns_and_long_texts_are_searched_aside() -> None:
    """A pattern made to be slow over long texts is searched in other threads, and its votes count as any others."""
    long = "ab" * 5000 + " answer: B"
    pattern = r"(?:[ab]*){150}(?:[ab]?){60}c|answer: (\w)"
    given = options(quorum=3, parameters={"extract": "regex", "pattern": pattern})
    # On the real clock, for a virtual one does not wait for threads.
    result = asyncio.run(_bench(a=long, b=long, c="answer: C").run(plan("a", "b", "c", strategy="vote", options=given), seconds=100))
    assert result.answer.provenance.verdict is not None
    assert [(vote.value, vote.candidate_ids) for vote in result.answer.provenance.verdict.votes] == [("b", ("a", "b")), ("c", ("c",))]


def test_an_unknown_option_of_any_spelling_is_refused_without_its_words() -> None:
    """Only a name that looks like one is repeated; anything else is the caller's own text."""
    for name, told in (("patern", "patern"), ("\x1b[2J secret", "?")):
        with pytest.raises(InvalidInput) as caught:
            _vote(Bench(), "a", "b", parameters={name: 1})
        assert [violation.field for violation in caught.value.violations] == [f"options.parameters.{told}"]
        assert "secret" not in str(caught.value)


QUESTIONS = 2000
WRONG = 3
"""How many wrong answers there are, each as likely as the others."""


def _theory(rates: tuple[float, ...]) -> float:
    """Return how often the plurality is right, over all ways in which members with these rates can answer; ties go to the first of the panel."""
    right = 0.0
    for answers in itertools.product(range(WRONG + 1), repeat=len(rates)):
        likelihood = math.prod(rate if answer == 0 else (1 - rate) / WRONG for answer, rate in zip(answers, rates, strict=True))
        most = max(Counter(answers).values())
        winner = next(answer for answer in answers if answers.count(answer) == most)
        right += likelihood * (winner == 0)
    return right


@pytest.mark.parametrize("rates", [(0.6, 0.6, 0.6), (0.8, 0.7, 0.55), (0.55, 0.55, 0.55, 0.55, 0.55)])
def test_accuracy_is_that_of_theory(rates: tuple[float, ...]) -> None:
    """Over 2,000 questions with members of known rates the share of right answers lies within the binomial's 99 % interval around what enumeration says."""
    names = "abcde"[: len(rates)]
    numbers = random.Random(20260401)
    right = 0
    for question in range(QUESTIONS):
        truth = question % 10
        values = [truth if numbers.random() < rate else 10 + numbers.randrange(WRONG) for rate in rates]
        order = [numbers.random() for _ in rates]
        replies = {name: Reply(text=f"I think {value}", after_seconds=when) for name, value, when in zip(names, values, order, strict=True)}
        bench = Bench(models=[*names, "w"], chat=ScriptedChat(replies=replies))
        right += _vote(bench, *names).answer.text == f"I think {truth}"
    expected = _theory(rates)
    margin = 2.576 * math.sqrt(expected * (1 - expected) / QUESTIONS)
    assert abs(right / QUESTIONS - expected) < margin
    assert expected > max(rates) or len(set(rates)) > 1
