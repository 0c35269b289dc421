"""Enums by name: a domain member and its wire value differ only by the wire's prefix."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=StrEnum)
Value = TypeVar("Value", bound=int)


class EnumMap(Generic[Member, Value]):
    """A two-way table between a domain enum and a wire enum; made at import, so a name that is missing on the wire fails at once."""

    def __init__(self, members: type[Member], items: Iterable[tuple[str, Value]], prefix: str) -> None:
        """Pair each domain member with the wire value of the same name behind the prefix."""
        values = dict(items)
        self._to_wire = {member: values[prefix + member.name] for member in members}
        self._from_wire = {int(value): member for member, value in self._to_wire.items()}

    def to_wire(self, member: Member) -> Value:
        """Return the wire value."""
        return self._to_wire[member]

    def from_wire(self, value: int) -> Member | None:
        """Return the domain member; None for the zero value and for one that this version does not know."""
        return self._from_wire.get(value)
