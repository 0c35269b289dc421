"""The command line of `ensemble`.

Commands import what they need when they run, so that `--help` does not wait for gRPC. How they end is told in `services.cli.exit_codes`.
"""

import signal
import sys
from collections.abc import Coroutine, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from services.cli.ending import ending
from services.cli.exit_codes import ExitCode
from services.cli.keys import keys_app
from services.cli.options import (
    HIGHEST_PORT_BASE,
    ConfigOption,
    GatewayOptions,
    JsonOption,
    LimiterOptions,
    LimiterTimeoutOption,
    MaxOutputTokensOption,
    MembersOption,
    ParametersOption,
    ProfileOption,
    QuorumOption,
    ServicesOptions,
    StrategyOption,
    SystemOption,
    TemperatureOption,
    grouped,
)
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

limits_app = typer.Typer()
app.add_typer(limits_app, name="limits")
app.add_typer(keys_app, name="keys")


class OverrideChoice(StrEnum):
    """What shall hold instead of a model's limits and breaker."""

    FORCED_OPEN = "forced-open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics-only"
    NONE = "none"


@app.command()
def up(
    config: ConfigOption = None,
    port_base: Annotated[
        int | None, typer.Option(min=0, max=HIGHEST_PORT_BASE, help="Use this port of 127.0.0.1 and the next three; 0 takes any that are free.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen where others can reach it also without TLS and authentication.")] = False,
) -> None:
    """Run the four services in this process until Ctrl-C or SIGTERM."""
    from collections.abc import AsyncIterator  # noqa: PLC0415 - see the top
    from contextlib import asynccontextmanager  # noqa: PLC0415 - see the top

    from services.chassis.bugs import tell_bugs  # noqa: PLC0415 - see the top
    from services.chassis.configuration import configuration_file  # noqa: PLC0415 - see the top
    from services.chassis.logs import set_up_logs  # noqa: PLC0415 - see the top
    from services.chassis.reloading import ConfigurationSource  # noqa: PLC0415 - see the top
    from services.chassis.server import RunningServer, run  # noqa: PLC0415 - see the top
    from services.cli.up import running  # noqa: PLC0415 - see the top

    with ending():
        set_up_logs()
        tell_bugs()
        configuration = _checked_configuration(config)

        @asynccontextmanager
        async def services() -> AsyncIterator[RunningServer]:
            source = ConfigurationSource(file=configuration_file(config), read=lambda: _checked_configuration(config))
            async with running(configuration, port_base=port_base, insecure=insecure, source=source) as started:
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
@grouped
def ask(
    prompt: Annotated[str | None, typer.Argument(help='The question; "-" reads it from standard input.')] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the question from a file.")] = None,
    reach: GatewayOptions,
    profile: ProfileOption = "",
    strategy: StrategyOption = "",
    member: MembersOption = None,
    quorum: QuorumOption = None,
    system: SystemOption = "",
    temperature: TemperatureOption = None,
    max_output_tokens: MaxOutputTokensOption = None,
    timeout: Annotated[float, typer.Option(min=0.001, max=86400, help="Deadline in seconds; the gateway may cut it.")] = 60.0,
    parameter: ParametersOption = None,
    schema: Annotated[Path | None, typer.Option(help="File with a JSON Schema that the answer shall satisfy.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.000001, max=1_000_000, help="Most that the run may cost, in USD.")] = None,
    hedge_delay: Annotated[float | None, typer.Option(min=0.001, max=600, help="Start a second call where one takes longer, in seconds.")] = None,
    retries: Annotated[int | None, typer.Option(min=0, max=4, help="How often a failed call is made again; default as in the profile.")] = None,
    candidates: Annotated[bool, typer.Option("--candidates", help="Show each member's answer too.")] = False,
    json: JsonOption = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answer to this file as well, whole or not at all.")] = None,
    output_root: Annotated[Path | None, typer.Option(help="Folder that --output may not leave.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --output overwrite a file.")] = False,
) -> None:
    """Ask the ensemble: progress and receipt on standard error, the answer on standard output."""
    from services.cli.asking import ask_for_a_person, ask_for_a_script  # noqa: PLC0415 - see the top
    from services.cli.connection import gateway_connection  # noqa: PLC0415 - see the top
    from services.cli.output_file import OutputFile  # noqa: PLC0415 - see the top
    from services.cli.question import Question, prompt_from, schema_from  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        destination = None if output is None else OutputFile.at(output, root=output_root, force=force)
        question = Question(
            prompt=prompt_from(prompt, file),
            gateway=gateway_connection(reach),
            timeout_seconds=timeout,
            profile=profile,
            strategy=strategy,
            system=system,
            members=tuple(member or ()),
            quorum=quorum,
            temperature=temperature,
            max_output_tokens=max_output_tokens,
            candidates=candidates,
            parameters=_parameters(parameter),
            response_schema="" if schema is None else schema_from(schema),
            max_cost_usd=max_cost,
            hedge_delay_seconds=hedge_delay,
            retries=retries,
        )
        _run(ask_for_a_script(question, destination) if json else ask_for_a_person(question, destination))


@app.command()
@grouped
def batch(
    prompts: Annotated[Path, typer.Argument(help='One JSON object a line: {"prompt": …} and, where it shall be its own, id, system, profile, strategy, …')],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File of the answers, one JSON object a line; what stands there is not asked again.")],
    reach: GatewayOptions,
    profile: ProfileOption = "",
    strategy: StrategyOption = "",
    member: MembersOption = None,
    quorum: QuorumOption = None,
    system: SystemOption = "",
    temperature: TemperatureOption = None,
    max_output_tokens: MaxOutputTokensOption = None,
    timeout: Annotated[float, typer.Option(min=0.001, max=86400, help="Deadline of each call in seconds; the gateway may cut it.")] = 60.0,
    parameter: ParametersOption = None,
    schema: Annotated[Path | None, typer.Option(help="File with a JSON Schema that each answer shall satisfy.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.000001, max=1_000_000, help="Most that one prompt may cost, in USD.")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, max=64, help="How many prompts are asked at once.")] = 4,
    attempts: Annotated[int, typer.Option(min=1, max=20, help="How often a prompt is asked before it counts as failed; it waits 5 minutes at most.")] = 3,
    force: Annotated[bool, typer.Option("--force", help="Start over: throw away what --output holds.")] = False,
    json: JsonOption = False,
) -> None:
    """Ask many questions; stopped and run again, ask only what is not answered. Exit code 1: some failed for good; 3: some failed, another run may help."""
    from services.cli.batch import Batch, run_batch  # noqa: PLC0415 - see the top
    from services.cli.connection import gateway_connection  # noqa: PLC0415 - see the top
    from services.cli.question import Question, schema_from  # noqa: PLC0415 - see the top

    code = ExitCode.OK
    with ending(as_json=json):
        template = Question(
            prompt="",
            gateway=gateway_connection(reach),
            timeout_seconds=timeout,
            profile=profile,
            strategy=strategy,
            system=system,
            members=tuple(member or ()),
            quorum=quorum,
            temperature=temperature,
            max_output_tokens=max_output_tokens,
            parameters=_parameters(parameter),
            response_schema="" if schema is None else schema_from(schema),
            max_cost_usd=max_cost,
        )
        work = Batch(source=prompts, output=output, template=template, concurrency=concurrency, attempts=attempts, force=force, as_json=json)
        code = run_batch(work, _run)
    raise typer.Exit(code)


@app.command()
@grouped
def models(reach: GatewayOptions, json: JsonOption = False) -> None:
    """List the models with breaker state and what is left of their limits."""
    from services.cli.connection import gateway_connection  # noqa: PLC0415 - see the top
    from services.cli.listings import list_models  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        _run(list_models(gateway_connection(reach), as_json=json))


@app.command()
@grouped
def profiles(reach: GatewayOptions, json: JsonOption = False) -> None:
    """List the configured ensembles."""
    from services.cli.connection import gateway_connection  # noqa: PLC0415 - see the top
    from services.cli.listings import list_profiles  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        _run(list_profiles(gateway_connection(reach), as_json=json))


@app.command()
@grouped
def health(reach: ServicesOptions, json: JsonOption = False) -> None:
    """Ask all four services for their health; no model is called."""
    from services.cli.connection import service_connections  # noqa: PLC0415 - see the top
    from services.cli.listings import check_health  # noqa: PLC0415 - see the top

    code = ExitCode.OK
    with ending(as_json=json):
        code = _run(check_health(service_connections(reach), as_json=json))
    raise typer.Exit(code)


@limits_app.callback(invoke_without_command=True)
@grouped
def limits(
    context: typer.Context,
    *,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Show only this model; may be repeated.")] = None,
    tenant: Annotated[list[str] | None, typer.Option("--tenant", "-t", help="Show only this tenant; may be repeated.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing each change, until Ctrl-C; with --json one object a line.")] = False,
    reach: LimiterOptions,
    timeout: LimiterTimeoutOption = 5.0,
    json: JsonOption = False,
) -> None:
    """Show limits, breakers and budgets live, as the limiter itself has them."""
    if context.invoked_subcommand is not None:
        given = [name for name in context.params if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"]
        if given:
            raise typer.BadParameter(f"options stand behind {context.invoked_subcommand}, not before it", param_hint=f"--{given[0]}")
        return
    from services.cli.connection import limiter_connection  # noqa: PLC0415 - see the top
    from services.cli.limits import show_limits  # noqa: PLC0415 - see the top
    from services.cli.limits_client import Selection  # noqa: PLC0415 - see the top
    from services.cli.limits_watch import watch_limits  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        selection = Selection(models=tuple(model or ()), tenants=tuple(tenant or ()))
        show = watch_limits if watch else show_limits
        _run(show(limiter_connection(reach), selection, timeout=timeout, as_json=json))


@limits_app.command("override")
@grouped
def limits_override(
    model: Annotated[str, typer.Argument(help="Name of the model in the catalogue.")],
    mode: Annotated[
        OverrideChoice,
        typer.Argument(
            help="forced-open: deny every call. disabled: the breaker lets every call through. metrics-only: count what would be denied, deny nothing. "
            "none: lift the override."
        ),
    ],
    *,
    period: Annotated[str | None, typer.Option("--for", help="How long it shall hold, 1s to 24h, for example 10m; not with none.")] = None,
    reach: LimiterOptions,
    timeout: LimiterTimeoutOption = 5.0,
    json: JsonOption = False,
) -> None:
    """Put an operator's word above a model's limits and breaker for a while, or lift it; print the model's state with it."""
    from services.cli.connection import limiter_connection  # noqa: PLC0415 - see the top
    from services.cli.limits import override, override_seconds  # noqa: PLC0415 - see the top

    with ending(as_json=json):
        seconds = override_seconds(mode, period)
        _run(override(limiter_connection(reach), model, mode, seconds, timeout=timeout, as_json=json))


@app.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Print the merged configuration with secrets masked, or every mistake with its path."""
    from services.chassis.configuration import read_keys_file, render  # noqa: PLC0415 - see the top

    with ending():
        configuration = _checked_configuration(config)
        if configuration.gateway.keys_path is not None:
            read_keys_file(configuration.gateway.keys_path, configuration.tenants)
        typer.echo(render(configuration), nl=False)


def _parameters(words: list[str] | None) -> Mapping[str, object]:
    if not words:
        return {}
    from services.cli.strategy_parameters import parameters_from  # noqa: PLC0415 - see the top

    return parameters_from(words)


def _checked_configuration(path: Path | None) -> "Configuration":
    """Load the configuration and hold its profiles against the strategies, which takes loading those too."""
    from services.chassis.configuration import load_configuration  # noqa: PLC0415 - see the top
    from services.cli.strategies import known_strategies  # noqa: PLC0415 - see the top

    return load_configuration(path, strategies=known_strategies())


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end; SIGTERM, like Ctrl-C, cancels it, so that calls are cancelled, children end and the terminal is put right."""
    import asyncio  # noqa: PLC0415 - see the top

    told = False

    async def until_told() -> Result:
        task = asyncio.current_task()

        def on_sigterm() -> None:
            # Raised where the signal strikes, an exception could come up in the middle of gRPC's own code, which does not survive that.
            nonlocal told
            told = True
            if task is not None:
                task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm)
        return await work

    try:
        return asyncio.run(until_told())
    except BaseException:
        if told:
            sys.exit(ExitCode.TERMINATED)
        raise


def main() -> None:
    """Run the command line."""
    prepare_streams()
    app()
