"""Answers kept in the memory of one process, which live and die with it; no method ever waits, so each one is indivisible."""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import TLRUCache

from services.gateway.kept_answers import ENTRY_OVERHEAD_BYTES, Claimed, Entry, Finished, OtherContent, Running, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    content: bytes
    data: bytes = field(repr=False)
    since: float
    """When it was kept, in seconds on the clock."""
    until: float
    """When it is kept no longer, in seconds on the clock."""

    @property
    def size(self) -> int:
        return len(self.data) + ENTRY_OVERHEAD_BYTES


class _Shelf(TLRUCache[str, _Kept]):
    """Kept answers within a bound; those that would be kept no longer first make room for new ones."""

    def __init__(self, most_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(maxsize=most_bytes, ttu=lambda _, kept, __: kept.until, timer=clock, getsizeof=lambda kept: kept.size)
        self._order: list[tuple[float, str]] = []

    def keep(self, name: str, kept: _Kept) -> bool:
        """Put an answer in the place of what has its name; return whether it fits."""
        self.pop(name, None)
        if kept.size > self.maxsize:
            return False
        if len(self._order) > 2 * len(self) + 8:
            # What was replaced or has ended leaves its mark behind.
            self._order = [(one.until, key) for key, one in self.items()]
            heapq.heapify(self._order)
        self[name] = kept
        heapq.heappush(self._order, (kept.until, name))
        return True

    def popitem(self) -> tuple[str, _Kept]:
        """Take out the answer that ends first."""
        while True:
            until, name = heapq.heappop(self._order)
            kept = self.get(name)
            if kept is not None and kept.until == until:
                del self[name]
                return name, kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    content: bytes
    owner: str
    until: float


class MemoryClaims:
    """Satisfies `services.gateway.kept_answers.Claims`."""

    def __init__(self, *, window_seconds: float, lease_seconds: float, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take how long and how much is kept."""
        self._window = window_seconds
        self._lease = lease_seconds
        self._clock = clock
        self._finished = _Shelf(most_bytes, clock)
        self._claims: dict[str, _Claim] = {}

    async def claim(self, name: str, content: bytes, owner: str, *, within_seconds: float) -> Standing:  # noqa: ARG002 - it takes no time
        """Take the claim if it is free or the owner's already, and return how things stand."""
        if (kept := self._finished.get(name)) is not None:
            return Finished(result=kept.data) if kept.content == content else OtherContent()
        held = self._held(name)
        if held is not None and held.owner != owner:
            return Running() if held.content == content else OtherContent()
        self._claims[name] = _Claim(content=content, owner=owner, until=self._clock() + self._lease)
        return Claimed()

    async def finish(self, name: str, content: bytes, owner: str, result: bytes, *, within_seconds: float) -> Finished:  # noqa: ARG002 - as above
        """Keep the result, unless one is kept already, and give the claim up; return what everybody who repeats this content is to be told."""
        kept, held = self._finished.get(name), self._held(name)
        self._give_up(name, owner)
        if kept is not None:
            return Finished(result=kept.data if kept.content == content else result)
        if held is None or held.owner == owner or held.content == content:
            now = self._clock()
            self._finished.keep(name, _Kept(content=content, data=result, since=now, until=now + self._window))
        return Finished(result=result)

    async def release(self, name: str, owner: str, *, within_seconds: float) -> None:  # noqa: ARG002 - as above
        """Give the claim up, if it is the owner's, with nothing to show."""
        self._give_up(name, owner)

    def _held(self, name: str) -> _Claim | None:
        held = self._claims.get(name)
        return held if held is not None and self._clock() < held.until else None

    def _give_up(self, name: str, owner: str) -> None:
        held = self._claims.get(name)
        if held is not None and held.owner == owner:
            del self._claims[name]


class MemoryEntries:
    """Satisfies `services.gateway.kept_answers.Entries`."""

    def __init__(self, *, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take how much is kept."""
        self._clock = clock
        self._entries = _Shelf(most_bytes, clock)

    async def get(self, name: str, *, within_seconds: float) -> Entry | None:  # noqa: ARG002 - it takes no time
        """Return what is kept under a name; None where nothing is, or nothing any longer."""
        kept = self._entries.get(name)
        return None if kept is None else Entry(data=kept.data, age_seconds=self._clock() - kept.since)

    async def put(self, name: str, data: bytes, ttl_seconds: float, *, within_seconds: float) -> bool:  # noqa: ARG002 - as above
        """Keep something in the place of what was kept under the name; return whether it is kept: too much is not."""
        now = self._clock()
        return self._entries.keep(name, _Kept(content=b"", data=data, since=now, until=now + ttl_seconds))
