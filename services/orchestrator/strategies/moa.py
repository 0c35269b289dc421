"""`moa`: layers of proposers, each of which sees the answers of the layer before, then a writer makes one answer of the last layer's.

Models answer better when they see others' answers, also weaker ones' (Wang et al. 2024, "Mixture-of-Agents Enhances Large Language Model Capabilities",
arXiv:2406.04692). The calls of the second layer are named "<id>@2", those of the third "<id>@3", and so on. A layer that brings too few answers is passed over:
the writer then works on those of the layer before, and the run is degraded.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from services.chassis.errors import EnsembleError
from services.models.completion import PlannedCall
from services.models.plan import RunPlan
from services.models.prompting.candidate_block import seed_of
from services.models.prompting.delimiters import new_nonce
from services.models.prompting.fitting import input_limit, made_aside
from services.models.prompting.proposals import proposal_messages
from services.models.provenance import Degradation
from services.orchestrator.options import panel_deadline, quorum_of, with_refiner
from services.orchestrator.panel import gather, stage_name
from services.orchestrator.parameters import Parameters, parameters_of
from services.orchestrator.refining import fused
from services.orchestrator.run import Run, Survivor
from services.orchestrator.strategy import Answer, Strategy


class MoaParameters(Parameters):
    """The options of moa alone."""

    layers: Annotated[int, Field(ge=1, le=4)] = 2
    """How many layers of proposers, 1 to 4; the panel answers once for each."""
    analysis: bool = False
    """Have the last layer's answers analysed; the writer sees the analysis, and so does the caller. One call more."""


class Moa(Strategy):
    """One answer of several that have seen each other."""

    parameters: ClassVar[type[Parameters]] = MoaParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a run without a writer."""
        parameters_of(MoaParameters, plan)
        return with_refiner(plan)

    async def answer(self, run: Run) -> Answer:
        """Gather layer by layer, then fuse; the layers share the panel's time evenly."""
        asked = parameters_of(MoaParameters, run.plan)
        proposers = tuple(run.calls)
        quorum = quorum_of(run.plan, len(proposers))
        end = panel_deadline(run)
        survivors = await gather(run, proposers, quorum, end.share(1 / asked.layers))
        degradations: tuple[Degradation, ...] = ()
        for layer in range(2, asked.layers + 1):
            calls = [await _proposal(run, call, layer, survivors) for call in proposers]
            run.calls.extend(calls)
            agreement = run.agreement
            try:
                survivors = await gather(run, calls, quorum, end.share(1 / (asked.layers - layer + 1)), stage=stage_name(layer))
            except EnsembleError:
                # What the layer before brought is there and paid for.
                run.agreement = agreement
                degradations = (Degradation.LAYER_FAILED,)
                break
        answer = await fused(run, survivors, analyse=asked.analysis)
        return replace(answer, degradations=(*degradations, *answer.degradations))


async def _proposal(run: Run, call: PlannedCall, layer: int, earlier: Sequence[Survivor]) -> PlannedCall:
    """Return a proposer's call in a further layer: the earlier answers are shown to it as data, in an order of its own."""
    nonce = new_nonce()
    candidate_id = f"{call.candidate_id}@{layer}"
    options = run.plan.options
    seed = options.shuffle_seed
    entry = run.guarded.entry(call.model)
    limit = options.candidate_byte_limit
    characters = sum(len(message.text) for message in call.messages) + sum(min(len(survivor.text), limit) for survivor in earlier)
    proposal = await made_aside(
        characters,
        lambda: proposal_messages(
            call.messages,
            [survivor.candidate() for survivor in earlier],
            nonce=nonce,
            seed=seed_of(f"{run.plan.run_id if seed is None else seed}:{candidate_id}"),
            byte_limit=limit,
            input_tokens=input_limit(entry.context_tokens, call.sampling.max_output_tokens or entry.max_output_tokens),
        ),
    )
    return replace(call, candidate_id=candidate_id, messages=proposal.messages, nonce=nonce)
