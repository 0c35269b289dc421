"""What `python -m services.<name>` does with its arguments, and its exit codes."""

import logging
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from services.chassis import entry
from services.chassis.configuration import Configuration
from services.chassis.server import RunningServer, ServerSettings, serve
from services.chassis.telemetry import Telemetry


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Put back the process's logging and what hears of its bugs, both of which an entry point sets up for itself."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = {name: logging.getLogger(name).level for name in ("ensemble", "services")}
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in ours.items():
        logging.getLogger(name).setLevel(before)


class _EnoughError(Exception):
    """Ends an application that would otherwise wait for a signal."""


class Recorded:
    """An application that notes how it was started, and ends before it serves."""

    def __init__(self) -> None:
        self.started: list[tuple[Configuration, str | None]] = []
        self.insecure: list[bool] = []

    def __call__(self, configuration: Configuration, *, listen: str | None = None, insecure: bool = False) -> AbstractAsyncContextManager[RunningServer]:
        """Note the arguments."""
        self.started.append((configuration, listen))
        self.insecure.append(insecure)
        raise _EnoughError


def _register(_: grpc.aio.Server) -> None:
    pass


@asynccontextmanager
async def listening(configuration: Configuration, *, listen: str | None = None, insecure: bool = False) -> AsyncIterator[RunningServer]:
    """Serve nothing at an address."""
    async with serve("ensemble.test.NoService", _register, ServerSettings(listen=listen or "", section="test", insecure=insecure), Telemetry.off()) as server:
        yield server


def _left(application: entry.Application, *arguments: str) -> list[int]:
    codes: list[int] = []
    entry.main(application, arguments, leave=codes.append)
    return codes


def test_the_named_file_and_the_address_reach_the_application(tmp_path: Path) -> None:
    """`--config` is read and `--listen` handed on."""
    path = tmp_path / "mine.yaml"
    path.write_text("limiter: {grace: 3s}\n", "utf-8")
    application = Recorded()
    with pytest.raises(_EnoughError):
        _left(application, "--config", str(path), "--listen", "127.0.0.1:0")
    ((configuration, listen),) = application.started
    assert configuration.limiter.grace_seconds == 3.0
    assert listen == "127.0.0.1:0"


@pytest.mark.parametrize("arguments", [(), ("--insecure",)])
def test_only_the_operator_s_word_lets_a_service_listen_openly(arguments: tuple[str, ...]) -> None:
    """`--insecure` is handed on, and is off unless it is said."""
    application = Recorded()
    with pytest.raises(_EnoughError):
        _left(application, *arguments)
    assert application.insecure == [bool(arguments)]


def test_an_address_that_others_can_reach_is_a_wrong_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what to do, no traceback; nothing listens."""
    assert _left(listening, "--listen", "0.0.0.0:0") == [entry.EXIT_CONFIGURATION]
    told = capsys.readouterr().err
    assert "test.listen: others can reach 0.0.0.0:0, and there is no TLS and authentication." in told
    assert "Traceback" not in told


def test_a_wrong_configuration_is_told_with_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, the place of the fault on standard error, nothing started, no traceback."""
    path = tmp_path / "mine.yaml"
    path.write_text("limiter: {grase: 3s}\n", "utf-8")
    application = Recorded()
    assert _left(application, "--config", str(path)) == [entry.EXIT_CONFIGURATION]
    assert application.started == []
    told = capsys.readouterr()
    assert "limiter.grase" in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_a_file_that_is_not_there_is_a_wrong_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A named file must exist."""
    assert _left(Recorded(), "--config", str(tmp_path / "none.yaml")) == [entry.EXIT_CONFIGURATION]
    assert "none.yaml" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_plainly(capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and one sentence with the address, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert _left(listening, "--listen", address) == [entry.EXIT_FAILED]
    told = capfd.readouterr().err
    assert f"cannot listen on {address}" in told
    assert "Traceback" not in told


def test_an_unknown_option_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, as argparse has it."""
    with pytest.raises(SystemExit) as left:
        _left(Recorded(), "--colour", "blue")
    assert left.value.code == entry.EXIT_CONFIGURATION
    assert "--colour" in capsys.readouterr().err
