"""The command `ensemble` as a process of its own."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

NOWHERE = "127.0.0.1:1"
"""Where nobody listens."""
PATIENCE_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()


async def begin(
    *arguments: str | bytes,
    folder: Path | None = None,
    environ: dict[str, str] | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **(environ or {})},
    )


async def ended(process: asyncio.subprocess.Process, stdin: bytes | None = None) -> Ended:
    """Wait for a command's end; one that does not come to it is killed."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Ended(process.returncode, out or b"", (err or b"").decode(errors="backslashreplace"))


async def ensemble(*arguments: str | bytes, stdin: bytes | None = None, folder: Path | None = None, environ: dict[str, str] | None = None) -> Ended:
    """Run the command to its end."""
    where = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
    return await ended(await begin(*arguments, folder=folder, environ=environ, stdin=where), stdin)


class Terminal:
    """A pseudo-terminal for a command to write to."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.openpty()
        self._content = b""

    def begun(self) -> None:
        """Leave the command's end to the command; to be called once it has begun."""
        os.close(self.theirs)

    async def shows(self, text: str) -> None:
        """Wait until the command has written a text."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while text.encode() not in self._content:
                piece = await asyncio.to_thread(self._read)
                assert piece, self._content
                self._content += piece

    async def shown(self) -> str:
        """Return everything the command wrote until it ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while piece := await asyncio.to_thread(self._read):
                self._content += piece
        os.close(self._ours)
        return self._content.decode()

    def _read(self) -> bytes:
        try:
            return os.read(self._ours, 65536)
        except OSError:
            # Nobody holds the other end any more; Linux says so with an error.
            return b""
