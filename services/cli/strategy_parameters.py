"""`--parameter NAME=VALUE`: options that one strategy alone understands, from the command line's words to values."""

import json
from collections.abc import Iterable, Mapping
from typing import NoReturn

from pydantic_core import PydanticCustomError

from services.chassis.configuration.parameters import checked_parameters
from services.cli.exit_codes import CommandError, ExitCode


def parameters_from(words: Iterable[str]) -> Mapping[str, object]:
    """Return the values by their names; one that is not JSON is text as it stands. Raises `CommandError`, which repeats no value."""
    parameters: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not name or not equals:
            raise _refused("--parameter", "must be NAME=VALUE")
        if name in parameters:
            raise _refused(f"--parameter {name}", "is given twice")
        parameters[name] = _value(name, text)
        try:
            checked_parameters({name: parameters[name]})
        except PydanticCustomError as refusal:
            raise _refused(f"--parameter {name}", refusal.message()) from None
    try:
        checked_parameters(parameters)
    except PydanticCustomError as refusal:
        raise _refused("--parameter", f"values together {refusal.message()}") from None
    return parameters


def _value(name: str, text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_json)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):
        # A number of thousands of figures, or lists within lists without end.
        raise _refused(f"--parameter {name}", "is more than can be read") from None


def _no_json(word: str) -> NoReturn:
    """Refuse NaN and Infinity, which the library would read as numbers."""
    raise json.JSONDecodeError("not JSON", word, 0)


def _refused(option: str, words: str) -> CommandError:
    return CommandError(f"{option} {words}", ExitCode.WRONG)
