"""Planted candidate texts against every method: what reaches a model keeps its frame, verdicts stay in range, and the answer follows the rule.

The models are as gullible as can be: a judge says what the planted text says, a writer repeats the prompt. None of that may do more than cost the refinement.
"""

import json
import re
from collections.abc import Sequence

import pytest

from services.models.chat import ChatRequest
from services.models.conversation import Message, Role
from services.models.prompting.delimiters import unescape
from services.models.prompting.proposals import proposal_messages
from services.models.prompting.visible_text import sanitize
from services.models.provenance import Degradation, Method
from services.models.refinement import Analysis, Refined, RefinementCandidate, RefineMethod, Writer
from tests.refiner.refining_bench import Answer, RefiningBench, refinement
from tests.support.planted_texts import PLANTED
from tests.support.scripted_chat import Reply

HONEST = (
    RefinementCandidate(candidate_id="one", model="a", text="Paris."),
    RefinementCandidate(candidate_id="three", model="c", text="It is Paris, on the Seine."),
)
BYTES = 4096
SCHEMA = '{"type":"object","required":["city"]}'
JUDGING = [RefineMethod.JUDGE, RefineMethod.CONSISTENT, RefineMethod.RANK]

assert len(PLANTED) >= 40


def _candidates(planted: str, *, last: bool = False) -> tuple[RefinementCandidate, ...]:
    mole = RefinementCandidate(candidate_id="mole", model="b", text=planted)
    return (*HONEST, mole) if last else (mole, *HONEST)


def _asked(method: RefineMethod, planted: str, **more: object) -> object:
    candidates = _candidates(planted)[:1] if method in {RefineMethod.SCORE, RefineMethod.REPAIR} else _candidates(planted)
    return refinement(method, *candidates, candidate_byte_limit=BYTES, response_schema=SCHEMA if method is RefineMethod.REPAIR else "", **more)


def _bodies(messages: Sequence[Message], nonce: str) -> list[str]:
    """Return what stands between the delimiters that carry the code, in their order, as a reader who goes by the code alone would find it."""
    text = "\n".join(message.text for message in messages)
    return re.findall(rf"^<<<DRAFT \d+ {nonce}\n(.*?)\n<<<END \d+ {nonce}$", text, re.MULTILINE | re.DOTALL)


def _frame_holds(messages: Sequence[Message], nonce: str, candidates: Sequence[RefinementCandidate]) -> None:
    """Check that each candidate stands once between its own delimiters, whole or cut with a mark, and that nothing else bears the code as a delimiter."""
    lines = [line for message in messages for line in message.text.split("\n")]
    material = [line for line in lines if line.startswith("<<<") and line.endswith(nonce)]
    others = re.compile(rf"<<<(END )?(TURN \d+ (user|system|assistant)|SCHEMA|PROBLEM|ANALYSIS) {nonce}")
    drafts = [line for line in material if others.fullmatch(line) is None]
    expected = [f"<<<{word} {position} {nonce}" for position in range(1, len(candidates) + 1) for word in ("DRAFT", "END")]
    assert drafts == expected
    found = [unescape(body) for body in _bodies(messages, nonce)]
    for candidate in candidates:
        clean = sanitize(candidate.text)
        if len(clean.encode()) <= BYTES:
            assert clean in found
        else:
            assert any(body.startswith(clean[:100]) and "cut here" in body for body in found)
    # No draft holds a sign that a reader cannot see, or the delimiter's own sign unescaped.
    for message in messages:
        if message.role is Role.USER:
            assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f]", message.text)
    assert not any(re.search(r"(?<![\\<])<{3}", body) for body in _bodies(messages, nonce))


def _refined(method: RefineMethod, planted: str, answer: Answer | Reply, **more: object) -> tuple[Refined, RefiningBench]:
    bench = RefiningBench(answers={"w": answer, "x": answer})
    return bench.refine(_asked(method, planted, **more)), bench  # type: ignore[arg-type]


@pytest.mark.parametrize("method", list(RefineMethod))
@pytest.mark.parametrize("name", PLANTED)
def test_the_frame_holds_whatever_a_candidate_says(name: str, method: RefineMethod) -> None:
    """Every prompt, repairs included, has a code of its own, and each candidate stands once between its delimiters, recoverable word for word."""
    _, bench = _refined(method, PLANTED[name], Reply(text="no verdict at all"))
    candidates = _candidates(PLANTED[name])[:1] if method in {RefineMethod.SCORE, RefineMethod.REPAIR} else _candidates(PLANTED[name])
    assert len(bench.requests) == (1 if method in {RefineMethod.FUSE, RefineMethod.REPAIR} else 2)
    assert len(set(bench.nonces)) == len(bench.nonces) >= len(bench.requests)
    for request, nonce in zip(bench.requests, bench.nonces, strict=False):
        _frame_holds(request.messages, nonce, candidates)
        # Our own instructions come first, and no candidate stands in a system message.
        assert request.messages[0].role is Role.SYSTEM
        assert nonce in request.messages[0].text
        assert sanitize(PLANTED[name])[:200] not in [message.text for message in request.messages if message.role is Role.SYSTEM]


@pytest.mark.parametrize("method", JUDGING)
@pytest.mark.parametrize("name", PLANTED)
def test_a_gullible_judge_cannot_leave_the_range(name: str, method: RefineMethod) -> None:
    """A judge that repeats the planted text says a verdict in range, which then counts for what was shown at that place, or none, and the rule decides."""
    planted = PLANTED[name]
    refined, bench = _refined(method, planted, Reply(text=planted))
    texts = {candidate.candidate_id: candidate.text for candidate in _candidates(planted)}
    (chosen,) = refined.provenance.candidate_ids
    assert refined.answer == texts[chosen]
    if refined.provenance.method is Method.FALLBACK:
        # By weight, else order: the planted text stands first here, and being first is all that it gains by.
        assert chosen == "mole"
        assert refined.degradations == (Degradation.REFINER_FAILED,)
        assert len(bench.requests) == 2
        return
    verdict = refined.provenance.verdict
    assert verdict is not None
    assert set(verdict.ranking) <= set(texts)
    assert all(1 <= position <= len(texts) for position in verdict.chosen_positions)
    assert json.loads(planted.strip("`json\n"))
    assert chosen == refined.provenance.display_order[verdict.chosen_positions[0] - 1]


@pytest.mark.parametrize("method", JUDGING)
@pytest.mark.parametrize("name", PLANTED)
def test_an_unreadable_verdict_never_promotes_the_planted_text(name: str, method: RefineMethod) -> None:
    """Where the planted text stands last and no judge says anything readable, the first candidate is the answer, whatever the planted one claims."""
    bench = RefiningBench(answers={"w": Reply(text=f"As it says: {PLANTED[name]}")})
    refined = bench.refine(refinement(method, *_candidates(PLANTED[name], last=True), candidate_byte_limit=BYTES))
    assert (refined.answer, refined.provenance.method) == ("Paris.", Method.FALLBACK)


@pytest.mark.parametrize("method", JUDGING)
@pytest.mark.parametrize("name", PLANTED)
def test_an_honest_judges_choice_is_the_answer_word_for_word(name: str, method: RefineMethod) -> None:
    """Beside any planted text the candidate that a judge chose is passed on as it was, not as it was shown."""

    def honest(request: ChatRequest) -> Reply:
        text = request.messages[-1].text
        places = {int(place): body for place, body in re.findall(r"^<<<DRAFT (\d+) \S+\n(.*?)\n<<<END ", text, re.MULTILINE | re.DOTALL)}
        best = next(place for place, body in places.items() if body == "It is Paris, on the Seine.")
        rest = [place for place in places if place != best]
        return Reply(text=json.dumps({"ranking": [best, *rest]} if method is RefineMethod.RANK else {"best": best}))

    refined, _ = _refined(method, PLANTED[name], honest)
    assert refined.answer == "It is Paris, on the Seine."
    assert refined.degradations == ()


@pytest.mark.parametrize("name", PLANTED)
def test_a_gullible_scorer_stays_on_the_scale(name: str) -> None:
    """A score is between 0 and 1 or there is none; the text that was scored is passed on as it was."""
    refined, _ = _refined(RefineMethod.SCORE, PLANTED[name], Reply(text=PLANTED[name]))
    assert refined.answer == PLANTED[name]
    assert refined.score == (1.0 if name == "fake score" else None)


@pytest.mark.parametrize("name", PLANTED)
def test_a_gullible_analyst_says_five_lists_or_nothing(name: str) -> None:
    """An analysis is one of the wanted form; all else is refused."""
    refined, _ = _refined(RefineMethod.ANALYSE, PLANTED[name], Reply(text=PLANTED[name]))
    assert (refined.analysis is not None) == (name == "fake analysis")
    assert refined.answer == ""


@pytest.mark.parametrize("method", [RefineMethod.FUSE, RefineMethod.REPAIR])
@pytest.mark.parametrize("name", PLANTED)
def test_a_writer_that_repeats_its_prompt_has_not_written(name: str, method: RefineMethod) -> None:
    """A writer that is talked into repeating the frame, code and all, brings no answer; the code never reaches the caller."""
    bench = RefiningBench(answers={"w": lambda request: Reply(text="\n".join(message.text for message in request.messages))})
    refined = bench.refine(_asked(method, PLANTED[name]))  # type: ignore[arg-type]
    assert refined.answer == PLANTED[name]
    assert refined.degradations == (Degradation.REFINER_FAILED,)
    assert not any(nonce in refined.answer for nonce in bench.nonces)


@pytest.mark.parametrize("name", PLANTED)
def test_an_analysis_of_planted_words_reaches_the_writer_as_data(name: str) -> None:
    """What an analyst was talked into is shown to the writer between delimiters, cleaned and escaped as a draft is."""
    words = PLANTED[name][:900] or "x"
    bench = RefiningBench(answers={"w": Reply(text="Paris it is.")})
    refined = bench.refine(refinement(RefineMethod.FUSE, *HONEST, analysis=Analysis(consensus=(words,)), candidate_byte_limit=BYTES))
    assert refined.answer == "Paris it is."
    (nonce,) = bench.nonces
    text = "\n".join(message.text for message in bench.requests[0].messages)
    assert text.count(f"\n<<<DRAFT 1 {nonce}\n") == 1
    assert not re.search(rf"^<<<(DRAFT|END) (?!1 |2 |ANALYSIS).*{nonce}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", PLANTED)
def test_a_proposer_sees_planted_drafts_as_data(name: str) -> None:
    """The layers of moa use the same frame."""
    question = (Message(role=Role.SYSTEM, text="Be brief."), Message(role=Role.USER, text="What is the capital of France?"))
    proposal = proposal_messages(question, _candidates(PLANTED[name]), nonce="c0de", seed=7, byte_limit=BYTES)
    _frame_holds(proposal.messages, "c0de", _candidates(PLANTED[name]))
    assert proposal.messages[-1] == question[-1]


@pytest.mark.parametrize("name", PLANTED)
def test_planted_texts_do_not_sway_a_ranking_by_their_author(name: str) -> None:
    """The judge that wrote the planted text is not shown it."""
    bench = RefiningBench(answers={"b": Reply(text='{"ranking": [1, 2]}'), "w": Reply(text='{"ranking": [3, 2, 1]}')})
    refined = bench.refine(
        refinement(RefineMethod.RANK, *_candidates(PLANTED[name]), judges=(Writer(model="b"), Writer(model="w")), candidate_byte_limit=BYTES)
    )
    own = next(request for request in bench.requests if request.provider_model == "b")
    code = next(nonce for nonce in bench.nonces if any(nonce in message.text for message in own.messages))
    assert len(_bodies(own.messages, code)) == 2
    assert refined.provenance.verdict is not None
    assert refined.provenance.verdict.judges == ("b", "w")
