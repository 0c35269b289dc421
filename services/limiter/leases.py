"""Calls under way, each with the end of its lease."""

import heapq


class Leases:
    """The leases of one model or tenant; their number is what counts as concurrency. All times are microseconds on the caller's clock."""

    __slots__ = ("_ends", "_heap")

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def hold(self, permit_id: str, end: int) -> None:
        """Add a lease, or give one another end."""
        if self._ends.get(permit_id) == end:
            return
        self._ends[permit_id] = end
        heapq.heappush(self._heap, (end, permit_id))
        self._tidy()

    def free(self, permit_id: str) -> None:
        """End a lease."""
        self._ends.pop(permit_id, None)
        self._tidy()

    def next_place(self, places: int) -> int:
        """Return when one of so many places is free at the latest; there must be as many leases as places, or more."""
        surplus = len(self._ends) - places
        if surplus > 0:
            return heapq.nsmallest(surplus + 1, self._ends.values())[-1]
        while self._ends.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0]

    def _tidy(self) -> None:
        # What is left of ended leases is swept from the top as it is met; when it outgrows the live ones, all at once.
        if len(self._heap) > 2 * len(self._ends) + 64:
            self._heap = [(end, permit) for permit, end in self._ends.items()]
            heapq.heapify(self._heap)
