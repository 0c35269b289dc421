"""An analyst says what the candidates have in common and where they differ, for a writer or for the caller; there is no answer."""

from dataclasses import replace

from services.models.prompting.candidate_block import shuffled
from services.models.prompting.prompt_file import load_prompt
from services.models.provenance import Degradation, Method, Provenance
from services.models.refinement import Refined
from services.refiner.session import Question, Session, ids
from services.refiner.verdicts import analysis_schema, read_analysis


async def analyse(session: Session) -> Refined:
    """Return the analysis; degraded where there is none."""
    refinement = session.refinement
    prompt = load_prompt("analyse", 1)
    shown = shuffled(refinement.candidates, session.seed)
    question = Question(prompt=prompt, judge=refinement.writer, member_id="analyst", shown=shown, schema=analysis_schema())
    analysis = await session.verdict(question, read_analysis)
    provenance = Provenance(
        # There is no method of its own, for there is no answer: of all that were shown something was made, or nothing was.
        method=Method.FALLBACK if analysis is None else Method.FUSED,
        candidate_ids=ids(refinement.candidates),
        display_order=ids(shown),
        prompt_version=prompt.version,
    )
    refined = session.refined("", provenance, *((Degradation.ANALYSIS_FAILED,) if analysis is None else ()))
    return replace(refined, analysis=analysis)
