"""The output of a batch: a line for each prompt as it ends, so that what was paid for is on the disk whatever happens next.

    lock --read what stands, cut off a torn end--> append, append, ... --every prompt has a line--> compact: one line each, in the input's order

A line is one write to the end of the file. What is killed in the middle of it leaves a torn end, which the next run cuts off; nothing else is ever changed in
place.
"""

import asyncio
import os
import stat
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from services.cli.batch_input import BatchInput
from services.cli.batch_lock import locked
from services.cli.batch_outcome import Standing, is_torn, kept_from
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.gateway_client import MAX_MESSAGE_BYTES

_APPENDED = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINE_BYTES = 16 * MAX_MESSAGE_BYTES
"""Above any line: the answer stands in it twice, and escaped a byte can become six."""


class BatchOutput:
    """An open file, and where each prompt stands in it."""

    def __init__(self, handle: int, path: Path, count: int) -> None:
        self._handle = handle
        self._path = path
        self._size = 0
        self._synced = 0
        self._syncing = asyncio.Lock()
        self._lines = 0
        self._starts = array("q", [-1]) * count
        """Where the last line of each prompt begins; -1 where there is none."""
        self._standings = bytearray(count)

    def wanted(self, place: int) -> bool:
        """Return whether a prompt is to be asked."""
        return self._standings[place] in {Standing.OPEN, Standing.RETRY}

    def count(self, standing: Standing) -> int:
        """Return how many prompts stand so."""
        return self._standings.count(standing)

    def append(self, place: int, line: bytes, standing: Standing) -> None:
        """Write a line, whole or not at all. Raises `CommandError`."""
        try:
            written = os.write(self._handle, line)
        except OSError as error:
            raise CommandError(f"{self._path}: {error.strerror}") from None
        if written != len(line):
            # What a full disk took of it must not stand before a later line.
            os.ftruncate(self._handle, self._size)
            raise CommandError(f"{self._path}: the disk took only a part of a line, which was cut off again")
        self._note(place, len(line), standing)

    async def settle(self) -> None:
        """Wait until everything that was appended is on the disk; those who wait meanwhile share the next turn. Raises `CommandError`."""
        size = self._size
        async with self._syncing:
            if self._synced >= size:
                return
            size = self._size
            try:
                await asyncio.to_thread(os.fsync, self._handle)
            except OSError as error:
                raise CommandError(f"{self._path}: {error.strerror}") from None
            self._synced = size

    def compact(self) -> None:
        """Give each prompt one line, in the order of the input; until every prompt has one, nothing happens. Raises `CommandError`."""
        if min(self._starts) < 0 or self._is_compact():
            return
        draft = self._path.with_name(f".{self._path.name}.ensemble-draft")
        try:
            self._write_draft(draft)
            draft.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise CommandError(f"{self._path}: {error.strerror}") from None
        finally:
            draft.unlink(missing_ok=True)

    def _is_compact(self) -> bool:
        return self._lines == len(self._starts) and all(one < other for one, other in pairwise(self._starts))

    def _write_draft(self, draft: Path) -> None:
        with os.fdopen(os.open(draft, _DRAFT, 0o600), "wb") as file, self._path.open("rb") as lines:
            for start in self._starts:
                lines.seek(start)
                file.write(lines.readline())
            os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(self._handle).st_mode) & 0o777)
            file.flush()
            os.fsync(file.fileno())

    def read_back(self, batch: BatchInput) -> None:
        """Learn what stands in the file and cut off a torn end. Raises `CommandError` for another batch's output, or a file that is none."""
        with self._path.open("rb") as lines:
            while line := lines.readline(_MOST_LINE_BYTES):
                kept = kept_from(line)
                if kept is None:
                    if not is_torn(line) or lines.read(1):
                        raise self._refused("is not the output of a batch")
                    os.ftruncate(self._handle, self._size)
                    break
                place = batch.places.get(kept.id)
                if place is None:
                    raise self._refused(f"{kept.id} is not in the input any more")
                if batch.sha256(place) != kept.sha256:
                    raise self._refused(f"{kept.id} was asked otherwise before: its line of the input or the options changed")
                self._note(place, len(line), kept.standing)
        self._synced = self._size

    def start_over(self) -> None:
        """Forget everything."""
        os.ftruncate(self._handle, 0)

    def _note(self, place: int, length: int, standing: Standing) -> None:
        self._starts[place] = self._size
        self._standings[place] = standing
        self._size += length
        self._lines += 1

    def _refused(self, words: str) -> CommandError:
        return CommandError(f"{self._path}: {words}; --force starts over", ExitCode.WRONG)


@contextmanager
def output_at(path: Path, batch: BatchInput, *, force: bool) -> Iterator[BatchOutput]:
    """Open the output of a batch for it alone, with what an earlier run left. Raises `CommandError`."""
    # Two names of one file must meet at one lock.
    target = Path(os.path.realpath(path))
    with ExitStack() as stack:
        try:
            _check(target, path, batch.file)
            stack.enter_context(locked(target))
            handle = os.open(target, _APPENDED, 0o666)
            stack.callback(os.close, handle)
            _sync_folder(target.parent)
            output = BatchOutput(handle, target, len(batch))
            if force:
                output.start_over()
            else:
                output.read_back(batch)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}", ExitCode.WRONG) from None
        yield output


def _check(target: Path, path: Path, source: Path) -> None:
    if target.exists():
        if not target.is_file():
            raise CommandError(f"{path}: is not a file", ExitCode.WRONG)
        if target.samefile(source):
            raise CommandError(f"{path}: is the input itself", ExitCode.WRONG)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
