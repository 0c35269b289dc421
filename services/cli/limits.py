"""`ensemble limits` and `ensemble limits override`: the limiter's live state, and an operator's word that stands above it."""

from google.protobuf.json_format import MessageToDict
from rich.console import Console

from ensemble.v1 import model_state_pb2
from services.chassis.configuration.durations import parse_duration
from services.cli.connection import Connection
from services.cli.ending import print_json
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.limits_client import Selection, limiter_at
from services.cli.limits_table import models_table, state_view

LEAST_SECONDS, MOST_SECONDS = 1.0, 86_400.0
"""How long an override may hold."""
_MODES = {
    "forced-open": model_state_pb2.OVERRIDE_MODE_FORCED_OPEN,
    "disabled": model_state_pb2.OVERRIDE_MODE_DISABLED,
    "metrics-only": model_state_pb2.OVERRIDE_MODE_METRICS_ONLY,
    "none": model_state_pb2.OVERRIDE_MODE_UNSPECIFIED,
}


async def show_limits(connection: Connection, selection: Selection, *, timeout: float, as_json: bool) -> None:
    """Print the state as it stands. Raises `CommandError`."""
    async with limiter_at(connection) as client:
        state = await client.state(selection, timeout=timeout)
    if as_json:
        print_json(MessageToDict(state, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        Console(highlight=False).print(state_view(state, connection.address))


async def override(connection: Connection, model: str, mode: str, seconds: float | None, *, timeout: float, as_json: bool) -> None:
    """Set or lift an override and print the model's state with it. Raises `CommandError`."""
    async with limiter_at(connection) as client:
        response = await client.set_override(model, _MODES[mode], seconds, timeout=timeout)
    if as_json:
        print_json(MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        Console(highlight=False).print(models_table([response.model]))


def override_seconds(mode: str, text: str | None) -> float | None:
    """Return how long an override shall hold; None for one that is lifted. Raises `CommandError`."""
    if mode == "none":
        if text is not None:
            raise _wrong("has no meaning where the override is lifted")
        return None
    if text is None:
        raise _wrong(f'is required for "{mode}", for example --for 10m')
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise _wrong('must be a duration with its unit, for example "90s", "10m" or "1.5h"') from None
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise _wrong("must lie between 1s and 24h")
    return seconds


def _wrong(description: str) -> CommandError:
    return CommandError(f"--for {description}", ExitCode.WRONG, violations={"--for": description})
