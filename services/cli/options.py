"""Options that several commands share, each with one name and one description."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file; default $ENSEMBLE_CONFIG, else ensemble.yaml in this folder.")]
GatewayOption = Annotated[str | None, typer.Option("--gateway", "-g", envvar="ENSEMBLE_GATEWAY", help="HOST:PORT of the gateway; default as configured.")]
LimiterOption = Annotated[str | None, typer.Option("--limiter", "-l", envvar="ENSEMBLE_LIMITER", help="HOST:PORT of the limiter; default as configured.")]
LimiterTimeoutOption = Annotated[float, typer.Option("--timeout", min=0.001, max=600, help="Longest time for the limiter's answer, in seconds.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
ProfileOption = Annotated[str, typer.Option(help="Configured ensemble; default the gateway's default.")]
StrategyOption = Annotated[str, typer.Option(help="Strategy instead of the profile's.")]
MembersOption = Annotated[list[str] | None, typer.Option(help="Model instead of the profile's panel; may be repeated.")]
QuorumOption = Annotated[int | None, typer.Option(help="How many good answers are enough.")]
SystemOption = Annotated[str, typer.Option(help="Instructions that stand above the question.")]
TemperatureOption = Annotated[float | None, typer.Option(help="Sampling temperature, 0 to 2.")]
MaxOutputTokensOption = Annotated[int | None, typer.Option(help="Longest answer in tokens.")]
ParametersOption = Annotated[list[str] | None, typer.Option(help="NAME=VALUE, an option of the strategy's own, VALUE as JSON or text; may be repeated.")]
