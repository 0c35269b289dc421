"""The port to where answers are kept for later: claims on runs with what came of them, and cached answers.

    free --claim--> claimed, a lease that its owner renews by claiming again --finish--> finished, for the window
     ^                 |  |
     `-----------------'  `-- release, or the lease ends: whoever claims next runs

Every method may raise `StoreDown`, and is told the longest time that can be waited for it, in seconds. A name is 64 hexadecimal figures, a content 32 bytes.
"""

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

ENTRY_OVERHEAD_BYTES = 256
"""What one answer takes beside itself, about, wherever it is kept."""
CONTENT_BYTES = 32


class StoreDown(Exception):
    """The store did not answer, or could not; nobody knows whether what was asked was done. The text names the kind of failure."""


class StoreHurried(StoreDown):
    """The store did not answer in the time that the caller had, which was less than it is given otherwise; that says nothing about the store."""


class StoreUnsuitable(Exception):
    """The store cannot be used at all; the text says why, and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The claim is the asker's, for one lease from now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Somebody else has the claim, for the same content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherContent:
    """The name was used for another content, which runs or is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The run is over."""

    result: bytes = field(repr=False)


Standing: TypeAlias = Claimed | Running | OtherContent | Finished


class Claims(Protocol):
    """Who runs what, and what came of it."""

    async def claim(self, name: str, content: bytes, owner: str, *, within_seconds: float) -> Standing:
        """Take the claim if it is free or the owner's already, and return how things stand."""
        ...

    async def finish(self, name: str, content: bytes, owner: str, result: bytes, *, within_seconds: float) -> Finished:
        """Keep the result, unless one is kept already, and give the claim up; return what everybody who repeats this content is to be told.

        The first result stands, whoever had the claim by then. One that is too large is not kept, nor one for whose name another content runs or is finished.
        """
        ...

    async def release(self, name: str, owner: str, *, within_seconds: float) -> None:
        """Give the claim up, if it is the owner's, with nothing to show."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A cached answer."""

    data: bytes = field(repr=False)
    age_seconds: float


class Entries(Protocol):
    """Cached answers."""

    async def get(self, name: str, *, within_seconds: float) -> Entry | None:
        """Return what is kept under a name; None where nothing is, or nothing any longer."""
        ...

    async def put(self, name: str, data: bytes, ttl_seconds: float, *, within_seconds: float) -> bool:
        """Keep something in the place of what was kept under the name; return whether it is kept: too much is not."""
        ...
