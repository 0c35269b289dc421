"""The output of a batch on a disk."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.cli.batch_input import BatchInput
from services.cli.batch_outcome import Outcome, Standing, line_of
from services.cli.batch_output import BatchOutput, output_at
from services.cli.exit_codes import CommandError, ExitCode, error_fields
from tests.support.batches import batch_of, kept_ids, names_in, numbered

FAILED = {"error": error_fields(code="UNAVAILABLE", message="m")}


@pytest.fixture
def batch(tmp_path: Path) -> BatchInput:
    """Return four prompts."""
    return batch_of(tmp_path / "in", numbered(4))


def _line(batch: BatchInput, place: int, standing: Standing = Standing.ANSWERED, text: str = "x") -> bytes:
    (prompt,) = batch.prompts(lambda other: other == place)
    told = {"answer": text, "response": {}} if standing is Standing.ANSWERED else FAILED
    return line_of(prompt, Outcome(standing=standing, told=told))


def _append(output: BatchOutput, batch: BatchInput, place: int, standing: Standing = Standing.ANSWERED, text: str = "x") -> None:
    output.append(place, _line(batch, place, standing, text), standing)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow above a size, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_last_line_of_a_prompt_counts_and_is_what_stays(tmp_path: Path, batch: BatchInput) -> None:
    """In the order of the input, with the permissions that the file had."""
    path = tmp_path / "out"
    path.touch(0o640)
    with output_at(path, batch, force=False) as output:
        for place, standing, text in ((3, Standing.RETRY, ""), (1, Standing.ANSWERED, "one"), (0, Standing.ANSWERED, "zero"), (3, Standing.ANSWERED, "three")):
            _append(output, batch, place, standing, text)
        output.compact()
        assert kept_ids(path) == ["a3", "a1", "a0", "a3"]
        _append(output, batch, 2)
        output.compact()
    expected = [_line(batch, 0, text="zero"), _line(batch, 1, text="one"), _line(batch, 2), _line(batch, 3, text="three")]
    assert path.read_bytes() == b"".join(expected)
    assert path.stat().st_mode & 0o777 == 0o640
    assert names_in(tmp_path) == ["in", "out"]


def test_a_file_in_order_is_left_as_it_is(tmp_path: Path, batch: BatchInput) -> None:
    """Not even written again."""
    path = tmp_path / "out"
    with output_at(path, batch, force=False) as output:
        for place in range(4):
            _append(output, batch, place)
        before = path.stat().st_ino
        output.compact()
    assert path.stat().st_ino == before


def test_what_stands_is_known_again(tmp_path: Path, batch: BatchInput) -> None:
    """Answered prompts are not wanted, those that may be answered yet are."""
    path = tmp_path / "out"
    with output_at(path, batch, force=False) as output:
        _append(output, batch, 0)
        _append(output, batch, 1, Standing.RETRY)
        _append(output, batch, 2, Standing.RETRY)
        _append(output, batch, 2)
    with output_at(path, batch, force=False) as output:
        assert [output.wanted(place) for place in range(4)] == [False, True, False, True]
        assert (output.count(Standing.ANSWERED), output.count(Standing.RETRY)) == (2, 1)


def test_a_draft_that_a_killed_batch_left_is_no_hindrance(tmp_path: Path, batch: BatchInput) -> None:
    """It is written over and goes away."""
    path = tmp_path / "out"
    (tmp_path / ".out.ensemble-draft").write_bytes(b"x" * 100_000)
    with output_at(path, batch, force=False) as output:
        for place in (3, 2, 1, 0):
            _append(output, batch, place)
        output.compact()
    assert (kept_ids(path), names_in(tmp_path)) == (["a0", "a1", "a2", "a3"], ["in", "out"])


@pytest.mark.parametrize(
    "content",
    [b"my notes", b"my notes\n", b'{"id": "a0", "prompt": "p0"}\n', b'{"id": "a0", "prompt": "p0"}', b'{"id": "a0", \nmore\n', b"\n", b'{"id": "\0\n{"id"'],
)
def test_a_file_of_somebody_elses_is_not_touched(tmp_path: Path, batch: BatchInput, content: bytes) -> None:
    """Unless it is told to; then it starts over."""
    path = tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(CommandError, match="not the output of a batch; --force starts over") as caught, output_at(path, batch, force=False):
        pass
    assert (caught.value.code, path.read_bytes(), names_in(tmp_path)) == (ExitCode.WRONG, content, ["in", "out"])
    with output_at(path, batch, force=True) as output:
        assert all(map(output.wanted, range(4)))
    assert path.read_bytes() == b""


def test_a_torn_end_is_cut_off(tmp_path: Path, batch: BatchInput) -> None:
    """And what comes next stands on a line of its own."""
    path = tmp_path / "out"
    path.write_bytes(_line(batch, 0) + _line(batch, 1)[:-1])
    with output_at(path, batch, force=False) as output:
        assert output.wanted(1)
        _append(output, batch, 2)
    assert path.read_bytes() == _line(batch, 0) + _line(batch, 2)


def test_a_line_that_does_not_fit_leaves_no_piece(tmp_path: Path, batch: BatchInput) -> None:
    """Whether the disk takes a part of it or none."""
    path = tmp_path / "out"
    with output_at(path, batch, force=False) as output:
        _append(output, batch, 0)
        size = path.stat().st_size
        for room, words in ((10, "only a part"), (0, "File too large")):
            with _largest_file(size + room), pytest.raises(CommandError, match=words):
                _append(output, batch, 1)
            assert path.read_bytes() == _line(batch, 0)
        _append(output, batch, 1)
    assert kept_ids(path) == ["a0", "a1"]


async def test_those_who_wait_for_the_disk_wait_together(tmp_path: Path, batch: BatchInput) -> None:
    """One turn settles everything that was appended before it; with nothing new there is none."""
    with output_at(tmp_path / "out", batch, force=False) as output:
        for place in range(4):
            _append(output, batch, place)
        await asyncio.gather(*(output.settle() for _ in range(4)))
        assert output._synced == output._size > 0


def test_what_is_no_place_for_answers_is_refused(tmp_path: Path, batch: BatchInput) -> None:
    """A folder, a pipe, a folder that is not there, and the input itself, by any name and forced or not."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(batch.file)
    before = batch.file.read_bytes()
    for name, words in ((".", "not a file"), ("pipe", "not a file"), ("none/out", "No such file"), ("in", "input itself"), ("link", "input itself")):
        for force in (False, True):
            with pytest.raises(CommandError, match=words) as caught, output_at(tmp_path / name, batch, force=force):
                pass
            assert caught.value.code is ExitCode.WRONG
    assert batch.file.read_bytes() == before
