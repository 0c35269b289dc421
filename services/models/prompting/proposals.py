"""The prompt of a proposer who sees what others proposed before it, as in the layers of Mixture-of-Agents (Wang et al. 2024, arXiv:2406.04692)."""

from collections.abc import Sequence
from typing import NamedTuple

from services.models.conversation import Message
from services.models.prompting.candidate_block import CLOSE, OPEN, candidate_block, shuffled
from services.models.prompting.fitting import fitted
from services.models.prompting.layout import reply_layout
from services.models.prompting.prompt_file import load_prompt
from services.models.refinement import RefinementCandidate


class Proposal(NamedTuple):
    """What a proposer is asked, and with what."""

    messages: tuple[Message, ...]
    display_order: tuple[str, ...]
    """Candidate ids from first to last."""
    prompt_version: str


def proposal_messages(
    messages: Sequence[Message], candidates: Sequence[RefinementCandidate], *, nonce: str, seed: int, byte_limit: int, input_tokens: int | None = None
) -> Proposal:
    """Return a conversation to which the candidates are shown as drafts of others, as data.

    Each prompt needs a fresh nonce (`new_nonce`). Candidates are cut to `byte_limit` bytes each and, where `input_tokens` is given (`input_limit`), so that the
    whole prompt is estimated at no more.
    """
    prompt = load_prompt("propose", 1)
    shown = shuffled(candidates, seed)

    def build(bodies: Sequence[str]) -> tuple[Message, ...]:
        return reply_layout(
            prompt.filled(open=OPEN, close=CLOSE, nonce=nonce),
            messages,
            material=f"What others would reply to my last message below:\n\n{candidate_block(bodies, nonce)}",
            promise="I will take them for what they are worth and reply in my own words.",
        )

    texts = [candidate.text for candidate in shown]
    return Proposal(
        fitted(build, texts, byte_limit=byte_limit, input_tokens=input_tokens), tuple(candidate.candidate_id for candidate in shown), prompt.version
    )
