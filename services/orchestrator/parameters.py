"""Options that one strategy alone understands: what `options.parameters` may hold, said by each strategy as a pydantic model."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.chassis.errors import FieldViolation, InvalidInput
from services.models.plan import RunPlan
from services.models.refinement import MOST_JUDGES

FIELD = "options.parameters"
_UNKNOWN = "extra_forbidden"
_NAME = re.compile(r"[a-zA-Z0-9_]{1,64}")

ModelName = Annotated[str, Field(min_length=1, max_length=128)]
Judges = Annotated[list[ModelName], Field(min_length=1, max_length=MOST_JUDGES)]


class Parameters(BaseModel):
    """One strategy's own options: strict about types and names, and silent about values in its errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    def flaws(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with options that are each right by themselves: the path, and words that do not repeat the value."""
        yield from ()


class NoParameters(Parameters):
    """No options."""


Kind = TypeVar("Kind", bound=Parameters)


def parameters_of(kind: type[Kind], plan: RunPlan) -> Kind:
    """Return a plan's parameters. Raises `InvalidInput` with the path of each that is wrong."""
    problems = list(problems_with(kind, plan.options.parameters))
    if problems:
        raise InvalidInput([FieldViolation(field=f"{FIELD}.{path}", description=words) for path, words in problems])
    return kind.model_validate(dict(plan.options.parameters))


def problems_with(kind: type[Parameters], parameters: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong: the path below the parameters, and words that do not repeat the value."""
    try:
        yield from kind.model_validate(dict(parameters)).flaws()
    except ValidationError as refusal:
        known = ", ".join(sorted(kind.model_fields)) or "none"
        for error in refusal.errors(include_url=False, include_input=False, include_context=False):
            # An unknown name is the caller's own text, so only one that looks like a name is repeated.
            steps = [step if isinstance(step, int) or _NAME.fullmatch(step) else "?" for step in error["loc"]]
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
            words = f"is no option of this strategy; known are: {known}" if error["type"] == _UNKNOWN else error["msg"].removeprefix("Input ")
            yield path, words.removeprefix("Value error, ")
