"""Where the real tools of tools/versions.toml are: those that `make tools` brought, else those on the PATH."""

import asyncio
import os
import shutil
from dataclasses import dataclass

import pytest

from scripts.tools import BIN, DebianTool, table

SECONDS_TO_RUN = 30.0


class ToolMissing(Exception):
    """A tool is not there; the text says what brings it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a tool ended."""

    code: int
    output: str
    errors: str


def find_tool(binary: str) -> str:
    """Return the path of a program of tools/versions.toml; raises ToolMissing."""
    brings = {one: "make prometheus" if isinstance(tool, DebianTool) else "make tools" for tool in table().values() for one in tool.binaries}
    found = shutil.which(binary, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise ToolMissing(f"no {binary}: neither in {BIN.relative_to(BIN.parents[2])} nor on the PATH; {brings[binary]} brings it")
    return found


def tool(binary: str) -> str:
    """Return the path of a program; the test is skipped where there is none, which fails it in CI."""
    try:
        return find_tool(binary)
    except ToolMissing as missing:
        pytest.skip(str(missing))


async def run_tool(binary: str, *arguments: str) -> Ended:
    """Run a program to its end, within `SECONDS_TO_RUN`; the test is skipped where there is none."""
    process = await asyncio.create_subprocess_exec(
        tool(binary), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SECONDS_TO_RUN):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(code=process.returncode, output=output.decode(), errors=errors.decode())
