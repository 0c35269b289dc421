"""JUDGE and CONSISTENT: a judge picks one candidate."""

from dataclasses import replace

import pytest

from services.models.outcomes import Outcome
from services.models.provenance import Degradation, Method
from services.models.refinement import RefinementCandidate, RefineMethod, Writer
from tests.refiner.refining_bench import THREE, TWO, RefiningBench, choose, in_turn, position_of, refinement
from tests.support.scripted_chat import FAILED, Reply

PICKS = (RefineMethod.JUDGE, RefineMethod.CONSISTENT)
FIRST_SHOWN = Reply(text='{"best": 1}')


@pytest.mark.parametrize(("method", "prompt"), [(RefineMethod.JUDGE, "judge/1"), (RefineMethod.CONSISTENT, "consistent/1")])
def test_the_pick_is_the_answer_as_it_is(method: RefineMethod, prompt: str) -> None:
    """The judge's number stands for the draft that it saw there; its text passes on untouched, and provenance says who judged and what was where."""
    bench = RefiningBench(answers={"w": choose(THREE[2].text)})
    heard: list[tuple[str, bool]] = []
    refined = bench.refine(refinement(method), heard=heard)
    assert refined.answer == THREE[2].text
    assert heard == [(THREE[2].text, False)]
    assert refined.degradations == ()
    provenance, verdict = refined.provenance, refined.provenance.verdict
    assert (provenance.method, provenance.candidate_ids, provenance.answer_model) == (Method.JUDGED, ("third",), "c")
    assert provenance.prompt_version == prompt
    assert verdict is not None
    assert (verdict.judges, verdict.ranking, verdict.scores, verdict.agreed) == (("w",), ("third",), (), True)
    assert verdict.chosen_positions == (provenance.display_order.index("third") + 1,)
    assert not verdict.judge_also_proposed
    assert [(call.member_id, call.candidate_id, call.model) for call in refined.calls] == [("judge", "", "w")]


@pytest.mark.parametrize("method", PICKS)
def test_the_order_follows_from_the_seed(method: RefineMethod) -> None:
    """A judge that always chooses the first picks by the seed: the same for the same seed, not for all."""
    picked = [RefiningBench(answers={"w": FIRST_SHOWN}).refine(refinement(method, shuffle_seed=seed)).answer for seed in (*range(8), *range(8))]
    assert picked[:8] == picked[8:]
    assert len(set(picked)) > 1


@pytest.mark.parametrize("method", PICKS)
def test_one_candidate_is_not_judged(method: RefineMethod) -> None:
    """It is returned as it is, said so; nobody is asked."""
    bench = RefiningBench()
    refined = bench.refine(refinement(method, TWO[0], passes=2))
    assert (refined.answer, refined.provenance.method, refined.degradations) == ("Paris.", Method.SOLE_SURVIVOR, (Degradation.SOLE_SURVIVOR,))
    assert bench.requests == []


def test_a_second_pass_sees_the_order_reversed() -> None:
    """Both passes are under way at the same time, each under a permit and with a code of its own; the second sees the first's order from its end."""
    bench = RefiningBench(answers={"w": lambda request: replace(choose(THREE[0].text)(request), after_seconds=3.0)})
    refined = bench.refine(refinement(RefineMethod.JUDGE, passes=2), seconds=5.0)
    first, second = ([position_of(request, candidate.text) for candidate in THREE] for request in bench.requests)
    assert [one + other for one, other in zip(first, second, strict=True)] == [4, 4, 4]
    assert bench.chat.most_running == 2
    assert len(bench.permits.granted) == 2
    assert len(set(bench.nonces)) == 2
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert (refined.answer, verdict.judges, verdict.agreed) == ("Paris.", ("w",), True)
    assert verdict.chosen_positions == (first[0], second[0])
    assert len(refined.calls) == 2


@pytest.mark.parametrize(
    ("candidates", "picked"),
    [
        pytest.param(TWO, "right", id="weight"),
        pytest.param((replace(TWO[0], rank=1), TWO[1]), "left", id="rank"),
        pytest.param((replace(TWO[0], text="Paris. " * 9), replace(TWO[1], weight=1.0)), "left", id="order"),
        pytest.param((replace(TWO[1], weight=1.0), replace(TWO[0], text="Paris. " * 9)), "right", id="order, not length"),
    ],
)
def test_where_passes_differ_the_rule_decides_between_them(candidates: tuple[RefinementCandidate, ...], picked: str) -> None:
    """A judge that chooses by place chooses two; rank, else weight, else the order of the panel decides, and they did not agree."""
    refined = RefiningBench(answers={"w": FIRST_SHOWN}).refine(refinement(RefineMethod.JUDGE, *candidates, passes=2))
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert (refined.provenance.candidate_ids, verdict.ranking, verdict.agreed) == ((picked,), (picked,), False)
    assert verdict.chosen_positions == (1, 1)
    assert refined.degradations == ()


def test_the_rule_decides_between_the_picks_alone() -> None:
    """A candidate that no pass picked is not the answer, however heavy it is."""
    heavy = replace(THREE[0], candidate_id="heavy", text="Heavy.", weight=99.0)
    bench = RefiningBench(answers={"w": in_turn(choose(THREE[2].text), choose(THREE[0].text))})
    refined = bench.refine(refinement(RefineMethod.JUDGE, *THREE, heavy, passes=2))
    assert refined.answer == THREE[0].text


@pytest.mark.parametrize("good", [0, 1])
def test_one_pass_alone_counts(good: int) -> None:
    """Where one pass fails, the other's pick is the answer; there is no disagreement among those that count."""
    answers = [FAILED, FAILED]
    bench = RefiningBench(answers={"w": in_turn(*(choose(THREE[2].text) if turn == good else answer for turn, answer in enumerate(answers)))})
    refined = bench.refine(refinement(RefineMethod.JUDGE, passes=2))
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert (refined.answer, verdict.agreed, len(verdict.chosen_positions)) == (THREE[2].text, True, 1)
    assert verdict.chosen_positions == (position_of(bench.requests[good], THREE[2].text),)
    assert sorted(call.outcome for call in refined.calls) == [Outcome.OK, Outcome.PROVIDER_FAILED]


@pytest.mark.parametrize("passes", [1, 2])
def test_a_judge_that_fails_falls_back(passes: int) -> None:
    """Without any verdict the heaviest candidate is the answer, degraded, and nobody has judged."""
    refined = RefiningBench(answers={"w": FAILED}).refine(refinement(RefineMethod.JUDGE, passes=passes))
    assert (refined.answer, refined.provenance.method) == (TWO[1].text, Method.FALLBACK)
    assert refined.provenance.verdict is None
    assert refined.provenance.prompt_version == "judge/1"
    assert sorted(refined.provenance.display_order) == ["left", "right", "third"]
    assert refined.degradations == (Degradation.REFINER_FAILED,)
    assert len(refined.calls) == passes


def test_a_judge_that_also_proposed_is_named() -> None:
    """The verdict says that the judge's model is among the candidates'."""
    refined = RefiningBench(answers={"a": FIRST_SHOWN}).refine(refinement(RefineMethod.JUDGE, writer=Writer(model="a")))
    assert refined.provenance.verdict is not None
    assert refined.provenance.verdict.judge_also_proposed


def test_the_pick_of_the_longest_shows_in_the_correlation() -> None:
    """Of three candidates the longest is picked: length and verdict correlate, as far as one pick can say."""
    refined = RefiningBench(answers={"w": choose(TWO[1].text)}).refine(refinement(RefineMethod.JUDGE))
    assert refined.provenance.verdict is not None
    assert refined.provenance.verdict.length_correlation == pytest.approx(0.866, abs=0.001)
    two = RefiningBench(answers={"w": choose(TWO[1].text)}).refine(refinement(RefineMethod.JUDGE, *TWO))
    assert two.provenance.verdict is not None
    assert two.provenance.verdict.length_correlation is None
