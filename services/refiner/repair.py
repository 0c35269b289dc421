"""A writer puts the one candidate into the form that was wanted; where it fails the candidate is passed on as it is, and whoever asked looks at it again."""

from collections.abc import Sequence

from services.models.conversation import Message
from services.models.prompting.candidate_block import CLOSE, OPEN, candidate_block
from services.models.prompting.delimiters import escape, framed
from services.models.prompting.layout import conversation_block, task_layout
from services.models.prompting.prompt_file import load_prompt
from services.models.prompting.visible_text import sanitize
from services.models.provenance import Method, Provenance
from services.models.refinement import Refined
from services.refiner.session import Session, ids, truncation


async def repair(session: Session) -> Refined:
    """Return the candidate as the writer puts it, else as it is."""
    refinement = session.refinement
    prompt = load_prompt("repair", 1)
    nonce = session.new_nonce()
    sampling = session.writer_sampling()

    def build(bodies: Sequence[str]) -> tuple[Message, ...]:
        material = (
            conversation_block(refinement.messages, nonce),
            candidate_block(bodies, nonce),
            framed("SCHEMA", escape(sanitize(refinement.response_schema)), nonce),
            framed("PROBLEM", escape(sanitize(refinement.problem)), nonce),
        )
        return task_layout(prompt.filled(open=OPEN, close=CLOSE, nonce=nonce), material=material, request="Now write the JSON value.")

    messages = await session.prompt(build, [candidate.text for candidate in refinement.candidates], refinement.writer.model, sampling)
    reply = await session.write(messages, sampling, nonce)
    if reply.value is None:
        return session.fallback(prompt, refinement.candidates)
    provenance = Provenance(
        method=Method.FUSED,
        candidate_ids=ids(refinement.candidates),
        display_order=ids(refinement.candidates),
        prompt_version=prompt.version,
        answer_model=refinement.writer.model,
    )
    return session.refined(reply.value, provenance, *truncation(reply))
