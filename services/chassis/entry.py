"""What `python -m services.<name>` does: read the configuration, run the service, say plainly what is wrong."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from services.chassis.bugs import tell_bugs
from services.chassis.configuration import Configuration, ConfigurationError, configuration_file, load_configuration
from services.chassis.logs import set_up_logs
from services.chassis.reloading import ConfigurationSource
from services.chassis.server import CannotListenError, CannotStartError, RunningServer, run

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


class Application(Protocol):
    """A service's composition root."""

    def __call__(self, configuration: Configuration, *, listen: str | None = None, insecure: bool = False) -> AbstractAsyncContextManager[RunningServer]:
        """Run the service while the context is open."""
        ...


class Rereading(Protocol):
    """The composition root of a service that goes by another configuration without being restarted."""

    def __call__(
        self, configuration: Configuration, *, listen: str | None = None, insecure: bool = False, source: ConfigurationSource | None = None
    ) -> AbstractAsyncContextManager[RunningServer]:
        """Run the service while the context is open, and look at the source now and then."""
        ...


def main(
    application: Application | None = None,
    arguments: Sequence[str] | None = None,
    *,
    rereading: Rereading | None = None,
    leave: Callable[[int], None] = sys.exit,
) -> None:
    """Run a service until it is told to stop. Exit codes: 0 stopped, 1 cannot listen or start, 2 the configuration is wrong."""
    parser = argparse.ArgumentParser(description="Run one of Ensemble's services.")
    parser.add_argument("--config", type=Path, help="configuration file (default: $ENSEMBLE_CONFIG, else ensemble.yaml in the working folder)")
    parser.add_argument("--listen", help="HOST:PORT instead of the configured one")
    parser.add_argument("--insecure", action="store_true", help="listen where others can reach it also without TLS and authentication")
    options = parser.parse_args(arguments)
    set_up_logs()
    tell_bugs()
    try:
        configuration = load_configuration(options.config)
        if rereading is not None:
            source = ConfigurationSource(file=configuration_file(options.config), read=lambda: load_configuration(options.config))
            service = rereading(configuration, listen=options.listen, insecure=options.insecure, source=source)
        elif application is not None:
            service = application(configuration, listen=options.listen, insecure=options.insecure)
        else:
            raise ValueError("there is nothing to run")
        asyncio.run(run(service))
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the terminal is where it is read
        leave(EXIT_CONFIGURATION)
    except (CannotListenError, CannotStartError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        leave(EXIT_FAILED)
