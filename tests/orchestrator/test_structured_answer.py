"""Answers that must satisfy a JSON Schema: told to members, checked, repaired once, else a typed failure."""

import pytest

from services.chassis.errors import DependencyUnavailable, InvalidAnswer, InvalidInput
from services.models.outcomes import Outcome
from services.models.plan import StrategyOptions
from services.models.provenance import Degradation
from services.models.receipt import CallReceipt
from services.models.refinement import RefineMethod, Writer
from services.models.usage import Cost
from services.orchestrator.events import AnswerDelta
from tests.support.ensembles import Bench, JoiningRefiner, plan
from tests.support.scripted_chat import Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
GOOD, BAD = '{"city": "Paris"}', '{"town": "a secret"}'


def _bench(text: str, **refiner: object) -> Bench:
    return Bench(chat=ScriptedChat(replies={"a": Reply(text=text)}), refiner=JoiningRefiner(**refiner))  # type: ignore[arg-type]


def _single(bench: Bench, *, options: StrategyOptions | None = None, listen: bool = False):  # type: ignore[no-untyped-def]
    given = options or StrategyOptions(refiner=Writer(model="w"))
    return run_virtual(bench.run(plan("a", strategy="single", options=given, response_schema=SCHEMA), listen=listen))


def test_members_are_told_of_the_schema() -> None:
    """In words, before the conversation, and beside it for the endpoint; the conversation itself stays as it is."""
    bench = _bench(GOOD)
    _single(bench)
    (request,) = bench.chat.requests
    assert request.sampling.response_schema == SCHEMA
    assert '"city"' in request.messages[0].text
    assert request.messages[-1].text == "What is the capital of France?"


def test_an_answer_that_fits_is_passed_on() -> None:
    """No repair is asked for, and nothing starts anew."""
    bench = _bench(GOOD)
    assert _single(bench, listen=True).answer.text == GOOD
    assert bench.refiner.asked == []
    assert not any(event.restart for event in bench.events if isinstance(event, AnswerDelta))


def test_a_fence_is_taken_off() -> None:
    """What is inside it is the answer, and whoever listened hears that instead."""
    bench = _bench(f"```json\n{GOOD}\n```")
    assert _single(bench, listen=True).answer.text == GOOD
    assert [event for event in bench.events if isinstance(event, AnswerDelta)][-1] == AnswerDelta(text=GOOD, restart=True)


def test_one_repair() -> None:
    """The run's writer is given the answer, the schema and what is wrong, in words that hold nothing of it; what it writes is the answer."""
    bench = _bench(BAD, repaired=GOOD)
    result = _single(bench)
    assert result.answer.text == GOOD
    refinement = bench.refiner.asked[0][0]
    assert (refinement.method, refinement.writer, refinement.response_schema) == (RefineMethod.REPAIR, Writer(model="w"), SCHEMA)
    assert [candidate.text for candidate in refinement.candidates] == [BAD]
    assert refinement.problem
    assert "secret" not in refinement.problem
    assert [stage.stage for stage in result.receipt.stages] == ["panel", "repair"]


def test_without_a_writer_the_model_repairs_its_own() -> None:
    """A strategy that needs no refiner has the model that answered put its answer right."""
    bench = _bench(BAD, repaired=GOOD)
    assert _single(bench, options=StrategyOptions()).answer.text == GOOD
    assert bench.refiner.asked[0][0].writer == Writer(model="a")


@pytest.mark.parametrize(
    "refiner",
    [
        {"repaired": BAD},
        {"repaired": GOOD, "degradations": (Degradation.REFINER_FAILED,)},
        {"error": DependencyUnavailable("refiner")},
    ],
)
def test_then_a_typed_failure(refiner: dict[str, object]) -> None:
    """A repair that fits no better, that failed, or could not be had: the error says what is wrong and what the run has cost, and nothing of the answer."""
    bench = _bench(BAD, **refiner)
    with pytest.raises(InvalidAnswer) as caught:
        _single(bench)
    assert caught.value.cost_micro_usd == 15
    assert "secret" not in str(caught.value)
    assert len(bench.refiner.asked) == 1


def test_the_repairs_cost_is_told_too() -> None:
    """What the repair spent is part of what the failed run has cost."""
    repair = CallReceipt(candidate_id="", member_id="refiner", model="w", outcome=Outcome.OK, cost=Cost(micro_usd=100))
    with pytest.raises(InvalidAnswer) as caught:
        _single(_bench(BAD, repaired=BAD, calls=(repair,)))
    assert caught.value.cost_micro_usd == 115


def test_a_bad_schema_is_refused_before_anything_is_asked() -> None:
    """Also where the gateway is not in between."""
    bench = Bench()
    with pytest.raises(InvalidInput) as caught:
        run_virtual(bench.run(plan("a", strategy="single", response_schema='{"type": 7}')))
    assert [violation.field for violation in caught.value.violations] == ["response_schema"]
    assert bench.permits.requests == []


def test_what_was_cut_short_is_whole_once_it_is_repaired() -> None:
    """The reason goes with the text that it was about; what is said of the repair is said of the answer."""
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text=BAD, truncated=True)}), refiner=JoiningRefiner(repaired=GOOD))
    assert _single(bench).answer.degradations == ()
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text=BAD)}), refiner=JoiningRefiner(repaired=GOOD, degradations=(Degradation.LIMITER_DOWN,)))
    assert _single(bench).answer.degradations == (Degradation.LIMITER_DOWN,)
