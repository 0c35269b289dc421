"""The one place where a command's end becomes words, or a JSON object, and an exit code."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from services.cli.exit_codes import CommandError, ExitCode, by_path
from services.cli.terminal_text import visible


@contextmanager
def ending(*, as_json: bool = False) -> Iterator[None]:
    """End the process where the command inside fails; see `services.cli.exit_codes` for how."""
    try:
        yield
    except KeyboardInterrupt:
        code = _say(CommandError("interrupted", ExitCode.INTERRUPTED), as_json=as_json)
    except CommandError as error:
        code = _say(error, as_json=as_json)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        code = ExitCode.FAILED
    except OSError as error:
        code = _say(CommandError(error.strerror or type(error).__name__), as_json=False)
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        code = _say(told, as_json=as_json)
    else:
        return
    raise typer.Exit(code)


def print_json(value: object) -> None:
    """Print one JSON object; in ASCII, so that any encoding of standard output carries it."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _say(error: CommandError, *, as_json: bool) -> ExitCode:
    # Where nobody is there to be told, the exit code still says it.
    with suppress(OSError):
        if as_json:
            print_json(error.as_json())
        else:
            for line in error.lines():
                sys.stderr.write(visible(line) + "\n")
            sys.stderr.flush()
    return error.code


def _told(error: Exception) -> CommandError | None:
    """Return an error whose text is meant for the person at the terminal; None for any other. Imports only now what a command may not have needed."""
    from services.chassis.configuration import ConfigurationError  # noqa: PLC0415 - see above
    from services.chassis.server import CannotListenError  # noqa: PLC0415 - see above

    if isinstance(error, ConfigurationError):
        return CommandError(str(error), ExitCode.WRONG, violations=by_path((problem.path, problem.message) for problem in error.problems))
    return CommandError(str(error)) if isinstance(error, CannotListenError) else None
