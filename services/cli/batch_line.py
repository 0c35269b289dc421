"""One line of a batch's input: what it may say, and the request that comes of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NoReturn

from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ensemble.v1 import gateway_service_pb2
from services.chassis.configuration.parameters import Parameters, plain_parameters
from services.cli.exit_codes import CommandError
from services.cli.question import Question

HIGHEST_INT32 = (1 << 31) - 1
Whole = Annotated[int, Field(ge=0, le=HIGHEST_INT32)]


class LineRefused(Exception):
    """A line of the input is not what it should be; says everything that is wrong with it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question of a batch."""

    id: str
    sha256: str
    """Of the request without its id, in hexadecimal digits: differs where anything that is asked differs."""
    request: gateway_service_pb2.GenerateRequest


class BatchLine(BaseModel):
    """What a line may say; what it leaves out is as the command line has it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    """Default the number of the line."""
    prompt: Annotated[str, StringConstraints(min_length=1)]
    system: str | None = None
    profile: str | None = None
    strategy: str | None = None
    members: list[str] | None = None
    parameters: Parameters | None = None
    """All of them: they are not mixed with those of the command line."""
    quorum: Whole | None = None
    temperature: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_output_tokens: Whole | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    def question(self, template: Question) -> Question:
        """Return the template with what this line says above it."""
        own: dict[str, Any] = {
            name: value
            for name in ("prompt", "system", "profile", "strategy", "quorum", "temperature", "max_output_tokens")
            if (value := getattr(self, name)) is not None
        }
        if self.members is not None:
            own["members"] = tuple(self.members)
        if self.parameters is not None:
            own["parameters"] = plain_parameters(self.parameters)
        return replace(template, **own)


def prompt_of(content: bytes, number: int, template: Question) -> Prompt:
    """Return the question that a line asks. Raises `LineRefused`, which repeats no value."""
    line = _line(content)
    try:
        request = line.question(template).request()
    except CommandError as error:
        raise LineRefused(str(error)) from None
    request.labels.update(line.labels)
    name = line.id or str(number)
    told = json.dumps(MessageToDict(request, preserving_proto_field_name=True), sort_keys=True, separators=(",", ":"))
    sha256 = hashlib.sha256(told.encode()).hexdigest()
    # The same in every run of this batch, so that whoever is asked again can know that it is.
    request.request_id = hashlib.sha256(f"{sha256}{name}".encode()).hexdigest()
    return Prompt(id=name, sha256=sha256, request=request)


def _line(content: bytes) -> BatchLine:
    try:
        value = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_no_json)
    except UnicodeDecodeError as error:
        raise LineRefused(f"is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise LineRefused(f"is not JSON (character {error.pos})") from None
    except (ValueError, RecursionError):
        # A number of thousands of figures, or lists within lists without end.
        raise LineRefused("is more than can be read") from None
    if not isinstance(value, dict):
        raise LineRefused("is not a JSON object")
    try:
        return BatchLine.model_validate(value)
    except ValidationError as error:
        raise LineRefused(*map(_problem, error.errors(include_url=False, include_context=False, include_input=False))) from None


def _object(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    """Refuse what says two things under one name, of which the library would take the last."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise LineRefused("has a field twice")
    return value


def _no_json(word: str) -> NoReturn:
    """Refuse NaN and Infinity, which the library would read as numbers."""
    raise json.JSONDecodeError("not JSON", word, 0)


_WORDS = {"extra_forbidden": "is not known", "missing": "is missing"}


def _problem(error: Mapping[str, Any]) -> str:
    path = ".".join(map(str, error["loc"]))
    return f"{path}: {_WORDS.get(error['type'], error['msg'])}"
