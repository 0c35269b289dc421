"""Planted texts through the real services: what goes over the wire to the judge keeps its frame, and what comes back follows the rule."""

import re

from ensemble.v1 import degradation_pb2, gateway_service_pb2, member_pb2, provenance_pb2
from services.models.prompting.delimiters import unescape
from services.models.prompting.visible_text import sanitize
from tests.support.fake_provider import Answer, FakeProvider
from tests.support.planted_texts import PLANTED
from tests.support.stack import WRITER, Stack

METHOD = provenance_pb2.Method
# The heaviest is honest, so the rule never chooses the planted text.
MEMBERS = [member_pb2.Member(model="alpha"), member_pb2.Member(model="beta", weight=2), member_pb2.Member(model="gamma")]
LIMIT = 65_536


def _drafts(provider: FakeProvider) -> list[str]:
    """Return what stands between numbered delimiters that end in the code, as it reached the provider."""
    messages = [message["content"] for message in provider.asked(WRITER)[-1].body["messages"]]
    code = re.search(r"end(?:ing)? in the code (\w+)", " ".join(messages[0].split()))
    assert code is not None
    found: list[str] = re.findall(rf"^<<<DRAFT \d+ {code[1]}\n(.*?)\n<<<END \d+ {code[1]}$", "\n".join(messages), re.MULTILINE | re.DOTALL)
    return found


async def _ask(services: Stack, provider: FakeProvider, planted: str, verdict: str, **fields: str) -> gateway_service_pb2.GenerateResponse:
    for model, text in (("alpha", planted), ("beta", "Paris."), ("gamma", "It is Paris."), (WRITER, verdict)):
        provider.script(model, Answer(text=text, pieces=4))
    return await services.ask("What is the capital of France?", members=MEMBERS, include_candidates=True, timeout=30, **fields)


async def test_a_judge_that_repeats_what_was_planted(services: Stack, provider: FakeProvider) -> None:
    """For each planted text: three drafts stand in the prompt, each whole or cut with a mark; a verdict that can be read is in range and counts for the place
    that it names; one that cannot leaves the heaviest candidate.
    """
    for name, planted in PLANTED.items():
        response = await _ask(services, provider, planted, planted, strategy="best_of_n")
        drafts = [unescape(draft) for draft in _drafts(provider)]
        if not planted.strip():
            # Blanks are no answer, so there is no candidate to show.
            assert len(drafts) == 2
            continue
        assert len(drafts) == 3, name
        clean = sanitize(next(candidate.text for candidate in response.candidates if candidate.candidate_id == "alpha"))
        assert any(draft == clean or (len(clean.encode()) > LIMIT and draft.startswith(clean[:1000]) and "cut here" in draft) for draft in drafts), name
        if response.provenance.method == METHOD.METHOD_FALLBACK:
            assert response.answer == "Paris.", name
            assert list(response.degradations) == [degradation_pb2.DEGRADATION_REFINER_FAILED], name
        else:
            (place,) = response.provenance.verdict.chosen_positions
            assert 1 <= place <= 3, name
            assert response.provenance.candidate_ids[0] == response.provenance.display_order[place - 1], name


async def test_a_writer_is_shown_what_was_planted_as_data(services: Stack, provider: FakeProvider) -> None:
    """For each planted text the writer sees all drafts in their frames, what it writes is the answer, and the other candidates stay as they were."""
    for name, planted in PLANTED.items():
        response = await _ask(services, provider, planted, "HACKED", strategy="fusion")
        assert len(_drafts(provider)) == (3 if planted.strip() else 2), name
        assert response.answer == "HACKED"
        assert response.provenance.method == METHOD.METHOD_FUSED
        assert [candidate.text for candidate in response.candidates][1:] == ["Paris.", "It is Paris."], name
