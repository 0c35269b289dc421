"""Reading the configuration again: when the file changes or is replaced, on SIGHUP, and what happens while it is wrong or gone."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.chassis.configuration import Configuration, load_configuration
from services.chassis.reloading import ConfigurationSource, reloading

FAR = 3600.0
"""An interval that no test lives to see, where only the signal shall count."""


def _written(path: Path, revision: int | str) -> None:
    path.write_text(f"limiter: {{revision: {revision}}}\n")


def _moved(path: Path, there: Path) -> None:
    path.replace(there)


def _made_to_look_like(path: Path, other: Path) -> tuple[int, int]:
    """Give a file the time of another one; return its time and size."""
    looks = other.stat()
    os.utime(path, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    return _looks(path)


def _looks(path: Path) -> tuple[int, int]:
    looks = path.stat()
    return looks.st_mtime_ns, looks.st_size


def _folders(root: Path) -> Path:
    """Make two folders with a file each, and links to both; return the first link."""
    for revision in (1, 2):
        folder = root / f"v{revision}"
        folder.mkdir()
        _written(folder / "ensemble.yaml", revision)
        (root / f"to{revision}").symlink_to(folder.name)
    return root / "to1"


class Applied:
    """What was applied, one after the other."""

    def __init__(self) -> None:
        self.revisions: list[int] = []
        self.reads = 0
        self._news = asyncio.Event()

    async def apply(self, configuration: Configuration) -> None:
        """Note it."""
        self.revisions.append(configuration.limiter.revision)
        self._news.set()

    async def next(self) -> int:
        """Wait until something has been applied since the last time; return the last of it."""
        await self._news.wait()
        self._news.clear()
        return self.revisions[-1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a configuration file with revision 1."""
    path = tmp_path / "ensemble.yaml"
    _written(path, 1)
    return path


@asynccontextmanager
async def _followed(file: Path | None, *, interval_seconds: float = 0.002) -> AsyncIterator[Applied]:
    """Follow a file while the context is open."""
    applied = Applied()

    def read() -> Configuration:
        applied.reads += 1
        return load_configuration(file, environ={}, folder=Path("/nonexistent"))

    async with asyncio.timeout(10), reloading(ConfigurationSource(file=file, read=read), applied.apply, interval_seconds=interval_seconds):
        yield applied


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


async def _looked(file: Path) -> None:
    """Wait until a watcher has looked at a file a few times: each look is a call of stat, which nobody can be told of, so its interval has passed amply."""
    for _ in range(20):
        await asyncio.sleep(0.002)


async def test_a_change_of_the_file_is_applied(file: Path) -> None:
    """Each of them, in place."""
    async with _followed(file) as applied:
        for revision in (2, 3, 10):
            _written(file, revision)
            assert await applied.next() == revision


async def test_a_file_that_is_replaced_is_applied(file: Path, tmp_path: Path) -> None:
    """As editors and mounted volumes do it: also when its time and its size are those of before."""
    async with _followed(file) as applied:
        other = tmp_path / "other.yaml"
        _written(other, 2)
        assert _made_to_look_like(other, file) == _looks(file)
        _moved(other, file)
        assert await applied.next() == 2


async def test_a_link_that_is_turned_is_applied(tmp_path: Path) -> None:
    """A configuration that a cluster mounts is a link to a folder that is exchanged."""
    link = _folders(tmp_path)
    async with _followed(link / "ensemble.yaml") as applied:
        _moved(tmp_path / "to2", link)
        assert await applied.next() == 2


async def test_what_does_not_change_is_not_read(file: Path) -> None:
    """However often it is looked at; nor is it read at the start."""
    async with _followed(file) as applied:
        await _looked(file)
        assert (applied.reads, applied.revisions) == (0, [])


async def test_sighup_reads_again_at_once(file: Path) -> None:
    """Though the file did not change, for the environment or a file behind it may have; each signal is heeded."""
    async with _followed(file, interval_seconds=FAR) as applied:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
            assert await applied.next() == 1
        _written(file, 2)
        os.kill(os.getpid(), signal.SIGHUP)
        assert await applied.next() == 2
        assert applied.reads == 4


async def test_sighup_is_heeded_without_a_file() -> None:
    """Everything may come from the environment."""
    async with _followed(None, interval_seconds=0.002) as applied:
        await _looked(Path())
        assert applied.reads == 0
        os.kill(os.getpid(), signal.SIGHUP)
        await applied.next()
        assert applied.reads == 1


async def test_a_wrong_file_keeps_the_old_configuration_and_says_so(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once for each change, with what is wrong; the next right one is applied."""
    async with _followed(file) as applied:
        for number, broken in enumerate(["-1", "["]):
            _written(file, broken)
            await _until(lambda told=number: len(caplog.records) > told)  # type: ignore[misc] # bound for this turn of the loop
        await _looked(file)
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
        assert "the one before it stays" in caplog.records[0].getMessage()
        assert "limiter.revision" in caplog.records[0].getMessage()
        assert applied.revisions == []
        _written(file, 7)
        assert await applied.next() == 7


async def test_a_file_that_is_gone_for_a_moment_changes_nothing(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was in force stays; it is read when it is there again, also when it is just the one of before."""
    async with _followed(file) as applied:
        _moved(file, tmp_path / "away.yaml")
        await _until(lambda: bool(caplog.records))
        assert applied.revisions == []
        _moved(tmp_path / "away.yaml", file)
        assert await applied.next() == 1
        assert len(caplog.records) == 1


async def test_the_file_is_read_beside_the_event_loop(file: Path) -> None:
    """A slow disk holds up no call."""
    threads = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> Configuration:
        threads.append(threading.current_thread())
        return load_configuration(file, environ={}, folder=Path("/nonexistent"))

    async def apply(configuration: Configuration) -> None:
        assert asyncio.get_running_loop() is loop
        done.set()

    async with asyncio.timeout(10), reloading(ConfigurationSource(file=file, read=read), apply, interval_seconds=FAR):
        os.kill(os.getpid(), signal.SIGHUP)
        await done.wait()
    assert threads[0] is not threading.current_thread()


async def test_without_a_source_nothing_is_watched() -> None:
    """A service in one process with others has none."""
    before = asyncio.all_tasks()

    async def apply(configuration: Configuration) -> None:
        raise AssertionError

    async with reloading(None, apply):
        assert asyncio.all_tasks() == before


async def test_afterwards_nobody_watches_any_more(file: Path) -> None:
    """Its task has ended, and the signal is what it was before."""
    before, tasks = signal.getsignal(signal.SIGHUP), asyncio.all_tasks()
    async with _followed(file):
        assert signal.getsignal(signal.SIGHUP) != before
    assert signal.getsignal(signal.SIGHUP) == before
    assert asyncio.all_tasks() == tasks


def test_in_another_thread_only_the_file_counts(file: Path) -> None:
    """Signals can be handled in the main thread only."""
    handlers, revisions = [], []

    async def follow() -> None:
        async with _followed(file) as applied:
            handlers.append(signal.getsignal(signal.SIGHUP))
            _written(file, 2)
            revisions.append(await applied.next())

    before = signal.getsignal(signal.SIGHUP)
    thread = threading.Thread(target=lambda: asyncio.run(follow()))
    thread.start()
    thread.join(15)
    assert (handlers, revisions) == ([before], [2])
