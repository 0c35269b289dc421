"""The command line of `ensemble`.

Commands import what they need when they run, so that `--help` does not wait for gRPC.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.exit_codes import CommandError, ExitCode

app = typer.Typer(
    help="Ask several language models at once and get one better answer with a receipt.",
    epilog="Exit codes: 0 ok; 1 failed; 2 wrong usage, configuration or request; 3 not available now, retry may help; 4 deadline passed; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file; default $ENSEMBLE_CONFIG, else ensemble.yaml in this folder.")]
GatewayOption = Annotated[str | None, typer.Option("--gateway", "-g", envvar="ENSEMBLE_GATEWAY", help="HOST:PORT of the gateway; default as configured.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command()
def up(
    config: ConfigOption = None,
    port_base: Annotated[int | None, typer.Option(min=0, max=65532, help="Use this port of 127.0.0.1 and the next three; 0 takes any that are free.")] = None,
) -> None:
    """Run the four services in this process until Ctrl-C or SIGTERM."""
    from collections.abc import AsyncIterator  # noqa: PLC0415
    from contextlib import asynccontextmanager  # noqa: PLC0415

    from services.chassis.configuration import load_configuration  # noqa: PLC0415
    from services.chassis.logs import set_up_logs  # noqa: PLC0415
    from services.chassis.server import RunningServer, run  # noqa: PLC0415
    from services.cli.up import running  # noqa: PLC0415

    set_up_logs()
    configuration = load_configuration(config)

    @asynccontextmanager
    async def services() -> AsyncIterator[RunningServer]:
        async with running(configuration, port_base=port_base) as started:
            for name, address in started.addresses().items():
                typer.echo(f"{name} {address}")
            if started.model_url is not None:
                typer.echo(f"model {started.model_url}")
            sys.stdout.flush()
            yield started.gateway

    _run(run(services()))


@app.command()
def demo(question: Annotated[str | None, typer.Argument(help="What to ask; default a question with a known answer.")] = None) -> None:
    """Ask one question of the embedded model through all four services, and show everything."""
    from services.cli.demo import QUESTION, demonstrate  # noqa: PLC0415

    _leave(_run(demonstrate(question or QUESTION)))


@app.command()
def ask(
    prompt: Annotated[str | None, typer.Argument(help='The question; "-" reads it from standard input.')] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the question from a file.")] = None,
    gateway: GatewayOption = None,
    profile: Annotated[str, typer.Option(help="Configured ensemble; default the gateway's default.")] = "",
    strategy: Annotated[str, typer.Option(help="Strategy instead of the profile's.")] = "",
    member: Annotated[list[str] | None, typer.Option(help="Model instead of the profile's panel; may be repeated.")] = None,
    quorum: Annotated[int | None, typer.Option(help="How many good answers are enough.")] = None,
    system: Annotated[str, typer.Option(help="Instructions that stand above the question.")] = "",
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature, 0 to 2.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Deadline in seconds.")] = 60.0,
    candidates: Annotated[bool, typer.Option("--candidates", help="Show each member's answer too.")] = False,
    json: JsonOption = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answer to this file as well, whole or not at all.")] = None,
    output_root: Annotated[Path | None, typer.Option(help="Folder that --output may not leave.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --output overwrite a file.")] = False,
) -> None:
    """Ask the ensemble: progress and receipt on standard error, the answer on standard output."""
    from services.cli.asking import Question, ask_for_a_person, ask_for_a_script, prompt_from  # noqa: PLC0415
    from services.cli.output_file import OutputFile  # noqa: PLC0415

    destination = None if output is None else OutputFile.at(output, root=output_root, force=force)
    question = Question(
        prompt=prompt_from(prompt, file),
        gateway=_gateway(gateway),
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
    _leave(_run(ask_for_a_script(question, destination) if json else ask_for_a_person(question, destination)))


@app.command()
def models(gateway: GatewayOption = None, json: JsonOption = False) -> None:
    """List the models with breaker state and what is left of their limits."""
    from services.cli.listings import list_models  # noqa: PLC0415

    _leave(_run(list_models(_gateway(gateway), as_json=json)))


@app.command()
def profiles(gateway: GatewayOption = None, json: JsonOption = False) -> None:
    """List the configured ensembles."""
    from services.cli.listings import list_profiles  # noqa: PLC0415

    _leave(_run(list_profiles(_gateway(gateway), as_json=json)))


@app.command()
def health(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Ask all four services for their health; no model is called."""
    from services.chassis.configuration import load_configuration  # noqa: PLC0415
    from services.cli.listings import check_health  # noqa: PLC0415

    configuration = load_configuration(config)
    addresses = {
        "gateway": configuration.gateway.listen,
        "orchestrator": configuration.gateway.orchestrator,
        "limiter": configuration.gateway.limiter,
        "refiner": configuration.orchestrator.refiner,
    }
    _leave(_run(check_health(addresses, as_json=json)))


@app.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Print the merged configuration with secrets masked, or every mistake with its path."""
    from services.chassis.configuration import load_configuration, render  # noqa: PLC0415

    typer.echo(render(load_configuration(config)), nl=False)


def _gateway(address: str | None) -> str:
    if address is not None:
        return address
    from services.chassis.configuration import load_configuration  # noqa: PLC0415

    return load_configuration().gateway.listen


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _leave(code: ExitCode) -> None:
    raise typer.Exit(int(code))


def main() -> None:
    """Run the command line; see `services.cli.exit_codes` for what it exits with."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough; what Python would still flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except CommandError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the terminal is where it is read
        sys.exit(error.code)
    except Exception as error:
        if not _is_plain(error):
            raise
        print(error, file=sys.stderr)  # noqa: T201 - as above
        sys.exit(ExitCode.WRONG if type(error).__name__ == "ConfigurationError" else ExitCode.FAILED)


def _is_plain(error: Exception) -> bool:
    """Whether an error's text is meant for the person at the terminal; told by name, so that nothing is imported for it."""
    return type(error).__name__ in {"ConfigurationError", "CannotListenError"}
