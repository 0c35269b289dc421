"""The four services as real gRPC servers in one process, with the embedded model beside them where a profile asks for it."""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.chassis.configuration import Configuration
from services.chassis.reloading import ConfigurationSource
from services.chassis.server import RunningServer
from services.cli import local_model
from services.cli.addresses import SERVICES, consecutive
from services.gateway.app import application as gateway
from services.limiter.app import application as limiter
from services.orchestrator.app import application as orchestrator
from services.refiner.app import application as refiner

LOCAL_PROVIDER = "local"
PACKAGED_URL = "http://127.0.0.1:50060/v1"
"""Where the packaged configuration says that the embedded model is; whoever says otherwise runs his own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Four services that serve."""

    gateway: RunningServer
    orchestrator: RunningServer
    limiter: RunningServer
    refiner: RunningServer
    model_url: str | None
    """The embedded model's base URL; None where it does not run."""
    traces_to: str | None
    """Where spans are sent; None where there are none."""

    def addresses(self) -> Mapping[str, str]:
        """Return where each service listens."""
        return {name: getattr(self, name).address for name in SERVICES}


@asynccontextmanager
async def running(
    configuration: Configuration,
    *,
    port_base: int | None = None,
    embedded_model: bool = True,
    insecure: bool = False,
    source: ConfigurationSource | None = None,
) -> AsyncIterator[Running]:
    """Run the services while the context is open; they stop in the reverse order, each draining first.

    `port_base` puts them on that port of 127.0.0.1 and the next three; 0 takes any that are free; None takes the configured addresses. Limits and tenants are
    read again from the source, where there is one. Raises `CannotListenError` or, for the embedded model, `CommandError`.
    """
    async with AsyncExitStack() as stack:
        url = None
        if embedded_model and wants_embedded_model(configuration):
            url = await stack.enter_async_context(local_model.local_model(50060 if port_base is None else 0))
            configuration = _with_model_at(configuration, url)
        listen: Mapping[str, str | None] = dict.fromkeys(SERVICES) if port_base is None else consecutive(port_base)
        # From the inside out, so that each knows the real addresses of those it calls.
        permits = await stack.enter_async_context(limiter(configuration, listen=listen["limiter"], insecure=insecure, source=source))
        configuration = _section(configuration, "refiner", limiter=permits.address)
        refining = await stack.enter_async_context(refiner(configuration, listen=listen["refiner"], insecure=insecure))
        configuration = _section(configuration, "orchestrator", limiter=permits.address, refiner=refining.address)
        runs = await stack.enter_async_context(orchestrator(configuration, listen=listen["orchestrator"], insecure=insecure))
        configuration = _section(configuration, "gateway", limiter=permits.address, orchestrator=runs.address)
        front = await stack.enter_async_context(gateway(configuration, listen=listen["gateway"], insecure=insecure, source=source))
        yield Running(gateway=front, orchestrator=runs, limiter=permits, refiner=refining, model_url=url, traces_to=configuration.telemetry.endpoint)


def wants_embedded_model(configuration: Configuration, *, installed: bool | None = None) -> bool:
    """Whether a profile uses the packaged local provider, and it can be had or nothing else would answer; `installed` is found out unless given."""
    provider = configuration.providers.get(LOCAL_PROVIDER)
    if provider is None or provider.base_url != PACKAGED_URL:
        return False
    if not any(_uses_local(configuration, name) for name in configuration.profiles):
        return False
    if local_model.installed() if installed is None else installed:
        return True
    if "default" in configuration.profiles and _uses_local(configuration, "default"):
        return True
    print("the embedded model is not installed; profiles that use it will fail", file=sys.stderr)  # noqa: T201 - for the person at the terminal
    return False


def _uses_local(configuration: Configuration, profile: str) -> bool:
    section = configuration.profiles[profile]
    models = [member.model for member in section.members] + ([section.refiner.model] if section.refiner is not None else [])
    return any(configuration.models[model].provider == LOCAL_PROVIDER for model in models)


def _with_model_at(configuration: Configuration, url: str) -> Configuration:
    provider = configuration.providers[LOCAL_PROVIDER].model_copy(update={"base_url": url})
    return configuration.model_copy(update={"providers": {**configuration.providers, LOCAL_PROVIDER: provider}})


def _section(configuration: Configuration, name: str, **addresses: str) -> Configuration:
    return configuration.model_copy(update={name: getattr(configuration, name).model_copy(update=addresses)})
