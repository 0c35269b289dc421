"""The panel of a run: who sits in it, under which names, and whether it is one that can be asked.

A seat without an id takes its model's name, with "#2", "#3", … where it is the model's second, third, … seat.
"""

from collections.abc import Iterator, Sequence

from services.chassis.errors import FieldViolation
from services.gateway.question import AskedMember
from services.models.plan import MOST_CALLS, Member


def seated(asked: Sequence[AskedMember]) -> tuple[Member, ...]:
    """Return the seats with their ids filled in."""
    seats_of: dict[str, int] = {}
    members = []
    for member in asked:
        seat = seats_of[member.model] = seats_of.get(member.model, 0) + 1
        members.append(
            Member(
                member_id=member.id or (member.model if seat == 1 else f"{member.model}#{seat}"),
                model=member.model,
                samples=member.samples,
                weight=member.weight,
                temperature=member.temperature,
                max_output_tokens=member.max_output_tokens,
                timeout_seconds=member.timeout,
                persona=member.persona,
            )
        )
    return tuple(members)


def calls_of(panel: Sequence[Member]) -> int:
    """Return how many calls the panel makes; 0 where a seat's samples are out of range, so that nothing follows from them."""
    return 0 if any(not 1 <= member.samples <= MOST_CALLS for member in panel) else sum(member.samples for member in panel)


def panel_violations(panel: Sequence[Member]) -> Iterator[FieldViolation]:
    """Yield what is wrong with a panel as a whole: too many calls, or two calls of one name."""
    # A panel of too many seats is refused already, for its length.
    if len(panel) <= MOST_CALLS < calls_of(panel):
        yield FieldViolation(field="members", description=f"make more than {MOST_CALLS} calls in all")
    named_by: dict[str, int] = {}
    for index, member in enumerate(panel):
        # A seat with neither id nor model is refused already, and a number of samples beyond the limit names no more calls.
        names = member.candidate_ids()[:MOST_CALLS] if member.member_id else ()
        taken = [named_by[name] for name in names if name in named_by]
        if taken:
            yield FieldViolation(field=f"members[{index}].id", description=f"gives a call the name that a call of members[{taken[0]}] has")
        named_by.update(dict.fromkeys(names, index))
