"""Claims as they are in a store elsewhere: each question takes its time on the way there and on the way back, and whoever asks may leave in between."""

import asyncio
from dataclasses import dataclass, field

from services.gateway.kept_answers import Finished, Standing, StoreDown, StoreHurried
from services.gateway.memory_answers import MemoryClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteClaims:
    """Satisfies `services.gateway.kept_answers.Claims` over claims in memory."""

    claims: MemoryClaims
    way_seconds: float
    """How long a question is on its way there, and its answer on its way back."""
    down: list[bool] = field(default_factory=list)
    """Whether the store is down for each of the next questions, the last one first; after them it is not."""
    unkept: list[str] = field(default_factory=list)
    """Names whose claims end with their leases: a result could not be kept for want of time, or the store was down for a question about them."""

    async def claim(self, name: str, content: bytes, owner: str, *, within_seconds: float) -> Standing:
        """Claim."""
        await self._ask(name, within_seconds)
        standing = await self.claims.claim(name, content, owner, within_seconds=within_seconds)
        await self._answer(within_seconds)
        return standing

    async def finish(self, name: str, content: bytes, owner: str, result: bytes, *, within_seconds: float) -> Finished:
        """Finish."""
        if within_seconds < self.way_seconds:
            self.unkept.append(name)
        await self._ask(name, within_seconds)
        finished = await self.claims.finish(name, content, owner, result, within_seconds=within_seconds)
        await self._answer(within_seconds)
        return finished

    async def release(self, name: str, owner: str, *, within_seconds: float) -> None:
        """Release."""
        await self._ask(name, within_seconds)
        await self.claims.release(name, owner, within_seconds=within_seconds)
        await self._answer(within_seconds)

    async def _ask(self, name: str, within_seconds: float) -> None:
        if self.down and self.down.pop():
            self.unkept.append(name)
            raise StoreDown("ConnectionError")
        if within_seconds < self.way_seconds:
            await asyncio.sleep(max(0.0, within_seconds))
            raise StoreHurried("TimeoutError")
        await asyncio.sleep(self.way_seconds)

    async def _answer(self, within_seconds: float) -> None:
        if within_seconds < 2 * self.way_seconds:
            await asyncio.sleep(within_seconds - self.way_seconds)
            raise StoreHurried("TimeoutError")
        await asyncio.sleep(self.way_seconds)
