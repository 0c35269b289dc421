"""Fusion by a writer model, with a deterministic fallback.

several candidates --writer answers--> FUSED
                   `-writer fails----> FALLBACK (degraded): rank, else weight, else order
one candidate ------------------------> SOLE_SURVIVOR, as it is
"""

from collections.abc import Sequence
from dataclasses import fields

from services.models.conversation import Message
from services.models.prompting.candidate_block import CLOSE, OPEN, candidate_block, shuffled
from services.models.prompting.delimiters import escape, framed
from services.models.prompting.layout import reply_layout
from services.models.prompting.prompt_file import load_prompt
from services.models.prompting.visible_text import sanitize
from services.models.provenance import Method, Provenance
from services.models.refinement import Analysis, Refined
from services.refiner.session import Session, ids, truncation


async def fuse(session: Session) -> Refined:
    """Return one answer that the writer makes of all candidates."""
    refinement = session.refinement
    if len(refinement.candidates) == 1:
        return session.sole_survivor()
    prompt = load_prompt("fuse", 1)
    nonce = session.new_nonce()
    shown = shuffled(refinement.candidates, session.seed)
    sampling = session.writer_sampling()
    analysis = "" if refinement.analysis is None else _outline(refinement.analysis)
    instructions = [prompt.filled(open=OPEN, close=CLOSE, nonce=nonce)]
    if analysis:
        instructions.append(load_prompt("fuse_analysis", 1).template)
    if refinement.response_schema:
        instructions.append(load_prompt("fuse_schema", 1).template)

    def build(bodies: Sequence[str]) -> tuple[Message, ...]:
        material = [f"Drafts of a reply to my last message below:\n\n{candidate_block(bodies[: len(shown)], nonce)}"]
        material += [framed("ANALYSIS", body, nonce) for body in bodies[len(shown) :]]
        if refinement.response_schema:
            material.append(framed("SCHEMA", escape(sanitize(refinement.response_schema)), nonce))
        return reply_layout(
            "\n\n".join(instructions), refinement.messages, material="\n\n".join(material), promise="I will weigh them and write one reply of my own."
        )

    # The analysis is made of candidates, so it is treated, and cut, like one.
    texts = [candidate.text for candidate in shown] + ([analysis] if analysis else [])
    reply = await session.write(await session.prompt(build, texts, refinement.writer.model, sampling), sampling, nonce)
    if reply.value is None:
        return session.fallback(prompt, shown)
    provenance = Provenance(
        method=Method.FUSED,
        candidate_ids=ids(refinement.candidates),
        display_order=ids(shown),
        prompt_version=prompt.version,
        answer_model=refinement.writer.model,
    )
    return session.refined(reply.value, provenance, *truncation(reply))


def _outline(analysis: Analysis) -> str:
    """Return the points under their headings; headings without points are left out."""
    parts = ((field.name.replace("_", " "), getattr(analysis, field.name)) for field in fields(analysis))
    return "\n\n".join("\n".join([f"{heading}:", *(f"- {point}" for point in points)]) for heading, points in parts if points)
