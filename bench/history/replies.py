"""What the clients were told, and what must hold of it.

I6: a repeat gives the grants of the first, and nothing ends twice. I7: what is denied leaves no trace. The audit and the replies must agree, too.
"Before" and "after" are of one client machine here, and mean that the one reply had come when the other request was sent.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.history.audit import Entry, Op
from bench.history.limits import Violation

DONE = {"SETTLED", "LATE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One spec's decision."""

    model: str
    permit: str = ""
    """Its id; empty where it was denied, and in a dry run."""
    reason: str = ""
    """Why it was denied; empty where it was granted."""
    tokens: int = 0
    generation: int = 0
    probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """One reply to AcquirePermits."""

    request: str
    tenant: str
    min_granted: int
    dry_run: bool
    began: float
    ended: float
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One reply to ReportOutcomes or ReleasePermits."""

    release: bool
    began: float
    ended: float
    settlements: tuple[tuple[str, str], ...]
    """Permit and settlement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """One reply to RenewPermits."""

    began: float
    ended: float
    permits: tuple[tuple[str, bool], ...]
    """Permit and whether it is still held."""


Reply = Acquired | Ended | Renewed


def violations(replies: Sequence[Reply]) -> Iterator[Violation]:
    """Check the replies by themselves."""
    batches: defaultdict[str, list[Acquired]] = defaultdict(list)
    ends: defaultdict[str, list[tuple[Ended, str]]] = defaultdict(list)
    renewals: defaultdict[str, list[Renewed]] = defaultdict(list)
    for reply in replies:
        match reply:
            case Acquired():
                batches[reply.request].append(reply)
            case Ended():
                for permit, settlement in reply.settlements:
                    ends[permit].append((reply, settlement))
            case Renewed():
                for permit, held in reply.permits:
                    if held:
                        renewals[permit].append(reply)
    for request, batch in batches.items():
        for reply in batch:
            yield from _denials(reply)
        yield from _repeats(request, sorted(batch, key=lambda reply: reply.began))
    for permit, given in ends.items():
        yield from _settlements(permit, given, renewals[permit])


def agreement(replies: Sequence[Reply], entries: Sequence[Entry], *, unanswered: int) -> Iterator[Violation]:
    """Check that audit and replies say the same: `unanswered` requests got no reply however often they were sent, so that their grants are nobody's."""
    grants = {entry.permit: entry for entry in entries if entry.op is Op.GRANT}
    ends = {(entry.permit, entry.op) for entry in entries}
    seen: set[str] = set()
    for reply in replies:
        if isinstance(reply, Acquired):
            for told in reply.told:
                grant = grants.get(told.permit)
                if told.permit and grant is None:
                    yield Violation("I5", f"permit {told.permit} of request {reply.request} is in no audit")
                elif grant is not None:
                    seen.add(told.permit)
                    said = (told.model, reply.tenant, told.tokens, told.generation, told.probe)
                    if said != (grant.model, grant.tenant, grant.tokens, grant.generation, grant.probe):
                        yield Violation("I6", f"permit {told.permit}: the reply says {said}, the audit {grant}")
        elif isinstance(reply, Ended):
            for permit, settlement in reply.settlements:
                op = Op.RELEASE if reply.release else {"SETTLED": Op.SETTLE, "LATE": Op.LATE}.get(settlement)
                if (settlement == "SETTLED" or (settlement == "LATE" and not reply.release)) and (permit, op) not in ends:
                    yield Violation("I6", f"permit {permit} is {settlement} by its reply, and its audit has no {op}")
    hidden = grants.keys() - seen
    if len(hidden) > 0 and not unanswered:
        yield Violation("I7", f"{len(hidden)} grants that no reply tells of, for example {min(hidden)}")


def _denials(reply: Acquired) -> Iterator[Violation]:
    granted = [told for told in reply.told if not told.reason]
    if reply.dry_run and any(told.permit for told in granted):
        yield Violation("I7", f"request {reply.request} is a dry run and was granted {granted[0].permit}")
    if not reply.dry_run and any(not told.permit for told in granted):
        yield Violation("I6", f"request {reply.request} was granted a permit without an id")
    if granted and len(granted) < reply.min_granted:
        yield Violation("I7", f"request {reply.request} was granted {len(granted)}, fewer than {reply.min_granted}")


def _repeats(request: str, batch: Sequence[Acquired]) -> Iterator[Violation]:
    for position in range(len(batch[0].told)):
        permits = {reply.told[position].permit for reply in batch} - {""}
        if len(permits) > 1:
            yield Violation("I6", f"request {request}, spec {position}: its repeats were granted {', '.join(sorted(permits))}")
        first = min((reply.ended for reply in batch if reply.told[position].permit), default=None)
        if first is not None and any(reply.began > first and not reply.told[position].permit for reply in batch):
            yield Violation("I6", f"request {request}, spec {position}: granted {min(permits)}, and denied when it was repeated")


def _settlements(permit: str, given: Sequence[tuple[Ended, str]], renewals: Sequence[Renewed]) -> Iterator[Violation]:
    # A release that comes late does nothing; every other SETTLED and LATE has had its effect.
    effects = [(reply, settlement) for reply, settlement in given if settlement == "SETTLED" or (settlement == "LATE" and not reply.release)]
    if len(effects) > 1:
        yield Violation("I6", f"permit {permit} took effect {len(effects)} times: {', '.join(settlement for _, settlement in effects)}")
    for reply, settlement in given:
        if settlement == "UNKNOWN":
            yield Violation("I6", f"permit {permit} is UNKNOWN, though it was granted")
        after = [effect for effect, _ in effects if effect.ended < reply.began]
        if after and settlement != "DUPLICATE":
            yield Violation("I6", f"permit {permit} is {settlement} after it had ended")
    for effect, settlement in effects:
        if any(renewal.began > effect.ended for renewal in renewals):
            yield Violation("I6", f"permit {permit} was renewed after it was {settlement}")
