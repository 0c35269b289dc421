"""Runs whose texts are larger than a message: cut where they may be, word for word where they must be."""

from hypothesis import given
from hypothesis import strategies as st

from services.models.outcomes import Outcome
from services.models.receipt import CallReceipt
from services.models.refinement import RefineMethod
from services.orchestrator.events import Candidate
from services.orchestrator.refining import REFINED_BYTES
from services.orchestrator.servicer import fitting
from tests.support.ensembles import Bench, options, plan
from tests.support.scripted_chat import Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

MEGABYTE = 1 << 20


def _candidate(name: str, text: str) -> Candidate:
    return Candidate(
        candidate_id=name, member_id=name, model=name, call=CallReceipt(candidate_id=name, member_id=name, model=name, outcome=Outcome.OK), text=text
    )


@given(st.lists(st.text(max_size=400), max_size=9), st.integers(1000, 4000))
def test_candidates_are_cut_to_the_room_there_is(texts: list[str], room: int) -> None:
    """Together they take no more than the room; a cut one is a beginning of what it was and flagged, and where all fit none is touched."""
    candidates = [_candidate(str(place), text) for place, text in enumerate(texts)]
    cut = fitting(candidates, room)
    sizes = [len(text.encode()) for text in texts]
    assert sum(len(candidate.text.encode()) for candidate in cut) <= max(room, 64 * len(texts))
    if sum(sizes) <= room:
        assert cut == candidates
    for before, after in zip(candidates, cut, strict=True):
        assert before.text.startswith(after.text)
        assert after.truncated == (before.text != after.text)


def test_a_pick_is_passed_on_whole() -> None:
    """Eight answers of a megabyte do not fit into one message to the refiner, so it is sent their beginnings; what it picks comes back word for word."""
    names = "abcdefgh"
    replies = {name: Reply(text=name * MEGABYTE) for name in names}
    bench = Bench(models=[*names, "w"], chat=ScriptedChat(replies=replies))
    result = run_virtual(bench.run(plan(*names, strategy="best_of_n", options=options(quorum=8)), listen=True))
    refinement = bench.refiner.asked[0][0]
    assert refinement.method is RefineMethod.JUDGE
    assert sum(len(candidate.text) for candidate in refinement.candidates) <= REFINED_BYTES
    assert result.answer.text == "h" * MEGABYTE
