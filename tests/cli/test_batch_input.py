"""The input of a batch."""

import codecs
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.cli.batch_input import BatchInput
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.gateway_client import MAX_MESSAGE_BYTES
from tests.support.batches import TEMPLATE, batch_of, numbered, write_prompts


def _read(file: Path, content: bytes) -> BatchInput:
    file.write_bytes(content)
    return BatchInput.read(file, TEMPLATE)


def _always(_: int) -> bool:
    return True


def test_blank_lines_count_but_ask_nothing(tmp_path: Path) -> None:
    """And a mark of the byte order, a Windows end or a missing one is no mistake."""
    batch = _read(tmp_path / "in", codecs.BOM_UTF8 + b'{"prompt": "a"}\r\n\n  \n{"prompt": "b"}')
    assert list(batch.places) == ["1", "4"]
    assert [prompt.request.prompt for prompt in batch.prompts(_always)] == ["a", "b"]


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    """By places, with the hashes of the first reading."""
    batch = batch_of(tmp_path / "in", numbered(5))
    prompts = list(batch.prompts({1, 3}.__contains__))
    assert [prompt.id for prompt in prompts] == ["a1", "a3"]
    assert [prompt.sha256 for prompt in prompts] == [batch.sha256(1), batch.sha256(3)]


def test_mistakes_are_told_together_up_to_twenty(tmp_path: Path) -> None:
    """In a file that is all mistakes the rest is not read."""
    with pytest.raises(CommandError) as caught:
        _read(tmp_path / "in", b'{"prompt": "a"}\n' + b"{}\n" * 30)
    assert caught.value.code is ExitCode.WRONG
    assert list(caught.value.violations) == [f"line {number}" for number in range(2, 22)]
    assert "20 lines cannot be asked, and perhaps more" in str(caught.value)
    with pytest.raises(CommandError, match="2 lines cannot be asked; nothing was"):
        _read(tmp_path / "in", b"{}\n{}\n")


def test_an_id_stands_once(tmp_path: Path) -> None:
    """A number that a line has by its place is an id too."""
    with pytest.raises(CommandError) as caught:
        _read(tmp_path / "in", b'{"prompt": "a", "id": "2"}\n{"prompt": "b"}\n')
    assert caught.value.violations == {"line 2": "id: 2 stands above already"}


def test_a_line_without_end_is_not_held(tmp_path: Path) -> None:
    """It is one mistake, and the line behind it has its own number."""
    with pytest.raises(CommandError) as caught:
        _read(tmp_path / "in", b'{"prompt": "' + b"a" * (3 * MAX_MESSAGE_BYTES) + b'"}\n{}\n')
    assert list(caught.value.violations) == ["line 1", "line 2"]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, content: bytes) -> None:
    """Nobody means it."""
    with pytest.raises(CommandError, match="holds no prompt"):
        _read(tmp_path / "in", content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """As bad input."""
    with pytest.raises(CommandError, match="none: No such file") as caught:
        BatchInput.read(tmp_path / "none", TEMPLATE)
    assert caught.value.code is ExitCode.WRONG


def test_a_mistake_of_the_options_is_told_once(tmp_path: Path) -> None:
    """And not for each line."""
    with pytest.raises(CommandError, match=r"^--quorum or --max-output-tokens is out of range$"):
        BatchInput.read(write_prompts(tmp_path / "in", numbered(3)), replace(TEMPLATE, quorum=1 << 40))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [*lines[:2], {"id": "a2", "prompt": "other"}], "line 3 changed"),
        (lambda lines: [lines[0], lines[2], lines[1]], "line 2 changed"),
        (lambda lines: [*lines, {"prompt": "more"}], "line 4 changed"),
        (lambda lines: [lines[0], {"nothing": 1}, lines[2]], "line 2 changed"),
        (lambda lines: lines[:2], "lost lines"),
    ],
)
def test_a_file_that_changes_while_the_batch_runs_is_noticed(
    tmp_path: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]], words: str
) -> None:
    """Before anything is asked that was not checked."""
    lines = numbered(3)
    batch = batch_of(tmp_path / "in", lines)
    write_prompts(tmp_path / "in", change(lines))
    with pytest.raises(CommandError, match=words):
        list(batch.prompts(_always))
