"""Options that several commands share, each with one name and one description, and groups of them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

HIGHEST_PORT_BASE = 65532

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
TlsOption = Annotated[
    bool | None,
    typer.Option("--tls/--no-tls", envvar="ENSEMBLE_TLS", help="Speak TLS or plain text; default as configured, TLS where one of its options is given."),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", envvar="ENSEMBLE_CA", help="PEM file with the authorities to trust; default as configured, else those of the web.")
]
ClientCertificateOption = Annotated[
    Path | None, typer.Option("--client-certificate", envvar="ENSEMBLE_CLIENT_CERTIFICATE", help="PEM file with a certificate to show; default as configured.")
]
ClientKeyOption = Annotated[
    Path | None, typer.Option("--client-key", envvar="ENSEMBLE_CLIENT_KEY", help="PEM file with the key of --client-certificate, not encrypted.")
]
ServerNameOption = Annotated[
    str | None,
    typer.Option("--server-name", envvar="ENSEMBLE_SERVER_NAME", help="Name that the other end's certificate must have; default the address's host."),
]
ApiKeyFileOption = Annotated[
    Path | None,
    typer.Option("--api-key-file", envvar="ENSEMBLE_API_KEY_FILE", help="File with an API key of the gateway; default the variable ENSEMBLE_API_KEY."),
]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="Send the API key in plain text also to an address that is not of this machine.")]
PortBaseOption = Annotated[
    int | None, typer.Option("--port-base", min=1, max=HIGHEST_PORT_BASE, help="The services run on this port of 127.0.0.1 and the next three.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How a service is reached; see `services.cli.connection` for what follows from what."""

    config: ConfigOption = None
    tls: TlsOption = None
    ca: CaOption = None
    client_certificate: ClientCertificateOption = None
    client_key: ClientKeyOption = None
    server_name: ServerNameOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions(ChannelOptions):
    """Which gateway is asked, how, and as whom."""

    gateway: GatewayOption = None
    api_key_file: ApiKeyFileOption = None
    insecure: InsecureOption = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterOptions(ChannelOptions):
    """Which limiter is asked, and how."""

    limiter: LimiterOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesOptions(ChannelOptions):
    """Where the four services are, and how they are asked."""

    port_base: PortBaseOption = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: each argument of a dataclass's type becomes an option for each of its fields."""
    signature = inspect.signature(command)
    groups: dict[str, Any] = {name: parameter.annotation for name, parameter in signature.parameters.items() if is_dataclass(parameter.annotation)}

    @wraps(command)
    def run(**given: Any) -> None:
        made = {name: kind(**{one.name: given.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()}
        command(**made, **given)

    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            kind = groups[parameter.name]
            hints = get_type_hints(kind, include_extras=True)
            parameters += [_option(one.name, hints[one.name], one.default) for one in fields(kind)]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    # What the command line is made from; without the last line it would be made from the command as it was written.
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # Functions have it, their type does not say so.
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__
    return run


def _option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
