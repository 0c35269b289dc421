"""Watching the state: what has changed since it was last told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from services.chassis.errors import DependencyUnavailable
from services.limiter.store import Store
from services.models.permits import LimiterState, ModelState, TenantState

INTERVAL_SECONDS = 0.5
"""How often a watcher looks. Other limiters on the same store change it as well, so nobody can be told of each change as it happens."""


class Watch:
    """Follows a store for any number of watchers."""

    def __init__(self, store: Store, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Take the store, and how often to look."""
        self._store = store
        self._interval = interval_seconds
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End all watching, now and from now on."""
        self._stopping.set()

    async def follow(self, models: Sequence[str] = (), tenants: Sequence[str] = ()) -> AsyncIterator[LimiterState]:
        """Yield the whole state, then what differs from what was yielded before, until it is told to stop. Names and errors are those of `Store.state`.

        Raises `DependencyUnavailable` when the watching is ended: another limiter, or this one when it is back, can be watched instead.
        """
        told_models: dict[str, ModelState] = {}
        told_tenants: dict[str, TenantState] = {}
        told_rest: object = None
        while not self._stopping.is_set():
            state = await self._store.state(models, tenants)
            changed_models = tuple(one for one in state.models if told_models.get(one.model) != _lasting_model(one))
            changed_tenants = tuple(one for one in state.tenants if told_tenants.get(one.tenant) != _lasting_tenant(one))
            rest = (state.config_version, state.degraded, state.learning_seconds is None)
            if changed_models or changed_tenants or rest != told_rest:
                yield replace(state, models=changed_models, tenants=changed_tenants)
            told_models |= {one.model: _lasting_model(one) for one in changed_models}
            told_tenants |= {one.tenant: _lasting_tenant(one) for one in changed_tenants}
            told_rest = rest
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._stopping.wait()
        raise DependencyUnavailable("limiter")


def _lasting_model(state: ModelState) -> ModelState:
    """Leave out times that only run down: each look would find them changed."""
    return replace(
        state,
        breaker=replace(state.breaker, open_for_seconds=None),
        provider_backoff_seconds=None if state.provider_backoff_seconds is None else 0.0,
        override_seconds=None,
    )


def _lasting_tenant(state: TenantState) -> TenantState:
    return replace(state, budgets=tuple(replace(budget, resets_in_seconds=0.0) for budget in state.budgets))
