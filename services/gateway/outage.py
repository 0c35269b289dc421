"""Whether a store is down: said once in the log as it goes and once as it is back, however often it is asked meanwhile."""

import logging
import time
from collections.abc import Callable

from services.gateway.kept_answers import StoreDown, StoreHurried

REST_SECONDS = 1.0
"""How long a store that failed is left alone by those who can do without it: each question would cost them the time until it fails."""

_log = logging.getLogger(__name__)


class Outage:
    """Keeps watch over one store."""

    def __init__(self, store: str, consequence: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take what the store is called in the log, and what it means that it is down."""
        self._store = store
        self._consequence = consequence
        self._clock = clock
        self._failed_at: float | None = None

    @property
    def resting(self) -> bool:
        """Whether it failed a moment ago."""
        return self._failed_at is not None and self._clock() - self._failed_at < REST_SECONDS

    def failed(self, down: StoreDown) -> None:
        """Note a failure; one for want of time is none."""
        if isinstance(down, StoreHurried):
            return
        if self._failed_at is None:
            _log.warning("the %s is down (%s): %s", self._store, down, self._consequence)
        self._failed_at = self._clock()

    def answered(self) -> None:
        """Note an answer."""
        if self._failed_at is not None:
            _log.warning("the %s is back", self._store)
        self._failed_at = None
