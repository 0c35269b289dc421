"""The command line of `ensemble`.

Commands import what they need when they run, so that `--help` does not wait for gRPC. How they end is told in `services.cli.exit_codes`.
"""

import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from services.cli.ending import ending
from services.cli.exit_codes import ExitCode
from services.cli.terminal_text import prepare_streams

if TYPE_CHECKING:
    from services.chassis.configuration import Configuration

Result = TypeVar("Result")

app = typer.Typer(
    help="Ask several language models at once and get one better answer with a receipt.",
    epilog="Exit codes: 0 ok; 1 failed; 2 wrong usage, configuration or request; 3 not available now, retry may help; 4 deadline passed; 130 interrupted; "
    '143 terminated. With --json a failed command prints {"error": {code, message, reason, metadata, violations, retry_after_seconds, trace_id}} on standard '
    "output.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file; default $ENSEMBLE_CONFIG, else ensemble.yaml in this folder.")]
GatewayOption = Annotated[str | None, typer.Option("--gateway", "-g", envvar="ENSEMBLE_GATEWAY", help="HOST:PORT of the gateway; default as configured.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
HIGHEST_PORT_BASE = 65532


@app.command()
def up(
    config: ConfigOption = None,
    port_base: Annotated[
        int | None, typer.Option(min=0, max=HIGHEST_PORT_BASE, help="Use this port of 127.0.0.1 and the next three; 0 takes any that are free.")
    ] = None,
) -> None:
    """Run the four services in this process until Ctrl-C or SIGTERM."""
    from collections.abc import AsyncIterator  # noqa: PLC0415 - see the top
    from contextlib import asynccontextmanager  # noqa: PLC0415 - see the top

    from services.chassis.logs import set_up_logs  # noqa: PLC0415 - see the top
    from services.chassis.server import RunningServer, run  # noqa: PLC0415 - see the top
    from services.cli.up import running  # noqa: PLC0415 - see the top

    with ending():
        set_up_logs()
        configuration = _configuration(config)

        @asynccontextmanager
        async def services() -> AsyncIterator[RunningServer]:
            async with running(configuration, port_base=port_base) as started:
                for name, address in started.addresses().items():
                    typer.echo(f"{name} {address}")
                typer.echo(f"model {started.model_url or 'none'}")
                typer.echo(f"traces {started.traces_to or 'off'}")
                sys.stdout.flush()
                yield started.gateway

        _run(run(services()))


@app.command()
def demo(question: Annotated[str | None, typer.Argument(help="What to ask; default a question with a known answer.")] = None) -> None:
    """Ask one question of the embedded model through all four services, and show everything."""
    from services.cli.demo import QUESTION, demonstrate  # noqa: PLC0415 - see the top

    with ending():
        _run(demonstrate(question or QUESTION))


@app.command()
def ask(
    prompt: Annotated[str | None, typer.Argument(help='The question; "-" reads it from standard input.')] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the question from a file.")] = None,
    gateway: GatewayOption = None,
    config: ConfigOption = None,
    profile: Annotated[str, typer.Option(help="Configured ensemble; default the gateway's default.")] = "",
    strategy: Annotated[str, typer.Option(help="Strategy instead of the profile's.")] = "",
    member: Annotated[list[str] | None, typer.Option(help="Model instead of the profile's panel; may be repeated.")] = None,
    quorum: Annotated[int | None, typer.Option(help="How many good answers are enough.")] = None,
    system: Annotated[str, typer.Option(help="Instructions that stand above the question.")] = "",
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature, 0 to 2.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, max=86400, help="Deadline in seconds; the gateway may cut it.")] = 60.0,
    candidates: Annotated[bool, typer.Option("--candidates", help="Show each member's answer too.")] = False,
    json: JsonOption = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answer to this file as well, whole or not at all.")] = None,
    output_root: Annotated[Path | None, typer.Option(help="Folder that --output may not leave.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --output overwrite a file.")] = False,
) -> None:
    """Ask the ensemble: progress and receipt on standard error, the answer on standard output."""
    from services.cli.asking import ask_for_a_person, ask_for_a_script  # noqa: PLC0415 - see the top
    from services.cli.output_file import OutputFile  # noqa: PLC0415 - see the top
    from services.cli.question import Question, prompt_from  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        destination = None if output is None else OutputFile.at(output, root=output_root, force=force)
        question = Question(
            prompt=prompt_from(prompt, file),
            gateway=_gateway(gateway, config),
            timeout_seconds=timeout,
            profile=profile,
            strategy=strategy,
            system=system,
            members=tuple(member or ()),
            quorum=quorum,
            temperature=temperature,
            max_output_tokens=max_output_tokens,
            candidates=candidates,
        )
        _run(ask_for_a_script(question, destination) if json else ask_for_a_person(question, destination))


@app.command()
def models(gateway: GatewayOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the models with breaker state and what is left of their limits."""
    from services.cli.listings import list_models  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        _run(list_models(_gateway(gateway, config), as_json=json))


@app.command()
def profiles(gateway: GatewayOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the configured ensembles."""
    from services.cli.listings import list_profiles  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        _run(list_profiles(_gateway(gateway, config), as_json=json))


@app.command()
def health(
    config: ConfigOption = None,
    port_base: Annotated[int | None, typer.Option(min=1, max=HIGHEST_PORT_BASE, help="The services run on this port of 127.0.0.1 and the next three.")] = None,
    json: JsonOption = False,
) -> None:
    """Ask all four services for their health; no model is called."""
    from services.cli.addresses import configured, consecutive  # noqa: PLC0415 - see the top
    from services.cli.listings import check_health  # noqa: PLC0415 - see the top

    code = ExitCode.OK
    with ending(as_json=json):
        addresses = configured(_configuration(config)) if port_base is None else consecutive(port_base)
        code = _run(check_health(addresses, as_json=json))
    raise typer.Exit(code)


@app.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Print the merged configuration with secrets masked, or every mistake with its path."""
    from services.chassis.configuration import render  # noqa: PLC0415 - see the top

    with ending():
        typer.echo(render(_configuration(config)), nl=False)


def _configuration(path: Path | None) -> "Configuration":
    from services.chassis.configuration import load_configuration  # noqa: PLC0415 - see the top

    return load_configuration(path)


def _gateway(address: str | None, config: Path | None) -> str:
    if address:
        return address
    from services.cli.addresses import gateway_of  # noqa: PLC0415 - see the top

    return gateway_of(_configuration(config))


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end; SIGTERM, like Ctrl-C, cancels it, so that calls are cancelled, children end and the terminal is put right."""
    import asyncio  # noqa: PLC0415 - see the top

    def terminated(*_: object) -> None:
        sys.exit(ExitCode.TERMINATED)

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        return asyncio.run(work)
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run the command line."""
    prepare_streams()
    app()
