"""What a request to the limiter must look like; every mistake is named with its field's path."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from services.chassis.errors import FieldViolation, InvalidInput

MOST_SPECS = 64
MOST_PERMITS = 256
MOST_MODELS = 256
MOST_TOKENS = 2**31 - 1
MOST_MICRO_USD = 10**12
LONGEST_NAME = 128
LEAST_LEASE_SECONDS = 0.001
SHORTEST_OVERRIDE_SECONDS, LONGEST_OVERRIDE_SECONDS = 1.0, 86_400.0
MOST_HEADERS, LONGEST_HEADER = 32, 256


class Spec(Protocol):
    """The part of a permit's spec that is checked."""

    model: str
    input_tokens: int
    max_output_tokens: int
    cost_micro_usd: int


def refuse(violations: Iterator[FieldViolation]) -> None:
    """Raise `InvalidInput` where there are violations."""
    found = list(violations)
    if found:
        raise InvalidInput(found)


def name_violations(field: str, value: str, *, required: bool = True) -> Iterator[FieldViolation]:
    """Check a name or an id."""
    if required and not value:
        yield FieldViolation(field=field, description="is required")
    elif len(value) > LONGEST_NAME:
        yield FieldViolation(field=field, description=f"has {len(value)} characters; at most {LONGEST_NAME} are allowed")


def range_violations(field: str, value: float, least: float, most: float) -> Iterator[FieldViolation]:
    """Check a number."""
    if not least <= value <= most:
        yield FieldViolation(field=field, description=f"must lie between {least:g} and {most:.0f}")


def count_violations(field: str, values: Sequence[object], most: int, *, least: int = 1) -> Iterator[FieldViolation]:
    """Check how many entries a list has."""
    if len(values) < least:
        yield FieldViolation(field=field, description="needs at least one entry")
    elif len(values) > most:
        yield FieldViolation(field=field, description=f"has {len(values)} entries; at most {most} are allowed")


def spec_violations(field: str, spec: Spec) -> Iterator[FieldViolation]:
    """Check one spec."""
    yield from name_violations(f"{field}.model", spec.model)
    yield from range_violations(f"{field}.input_tokens", spec.input_tokens, 0, MOST_TOKENS)
    yield from range_violations(f"{field}.max_output_tokens", spec.max_output_tokens, 0, MOST_TOKENS)
    yield from range_violations(f"{field}.cost_micro_usd", spec.cost_micro_usd, 0, MOST_MICRO_USD)


def permit_id_violations(permit_ids: Sequence[str]) -> Iterator[FieldViolation]:
    """Check a list of permit ids."""
    yield from count_violations("permit_ids", permit_ids, MOST_PERMITS)
    for position, permit_id in enumerate(permit_ids[:MOST_PERMITS]):
        yield from name_violations(f"permit_ids[{position}]", permit_id)


def selection_violations(models: Sequence[str], tenants: Sequence[str]) -> Iterator[FieldViolation]:
    """Check whose state is asked for."""
    for field, names in (("models", models), ("tenants", tenants)):
        yield from count_violations(field, names, MOST_MODELS, least=0)
        seen: set[str] = set()
        for position, name in enumerate(names[:MOST_MODELS]):
            yield from name_violations(f"{field}[{position}]", name)
            if name in seen and len(names) <= MOST_MODELS:
                yield FieldViolation(field=f"{field}[{position}]", description="stands twice")
            seen.add(name)
