"""Output files: whole or not at all, inside their root, never over another file unless told to."""

import os
from pathlib import Path

import pytest

from services.cli.exit_codes import CommandError, ExitCode
from services.cli.output_file import OutputFile


def _refused(path: Path, *, root: Path | None = None, force: bool = False) -> str:
    with pytest.raises(CommandError) as caught:
        OutputFile.at(path, root=root, force=force)
    assert caught.value.code is ExitCode.WRONG
    return str(caught.value)


def test_a_new_file_is_written_whole(tmp_path: Path) -> None:
    """The text arrives as UTF-8, and nothing else is left in the folder."""
    OutputFile.at(tmp_path / "answer.txt").write("Zürich\r\n")
    assert (tmp_path / "answer.txt").read_bytes() == "Zürich\r\n".encode()
    assert os.listdir(tmp_path) == ["answer.txt"]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    """Without --force the refusal comes before anything is asked; with it the file is replaced."""
    path = tmp_path / "answer.txt"
    path.write_text("old")
    assert "--force" in _refused(path)
    OutputFile.at(path, force=True).write("new")
    assert path.read_text() == "new"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    """Between check and write somebody else may take the name; his file stays."""
    output = OutputFile.at(tmp_path / "answer.txt")
    (tmp_path / "answer.txt").write_text("theirs")
    with pytest.raises(CommandError, match="exists"):
        output.write("ours")
    assert (tmp_path / "answer.txt").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["answer.txt"]


@pytest.mark.parametrize("path", ["../escaped.txt", "inside/../../escaped.txt"])
def test_a_path_that_climbs_out_of_the_root_is_refused(tmp_path: Path, path: str) -> None:
    """Dots are resolved before they are judged."""
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    assert "leaves" in _refused(root / path, root=root)


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    """A folder inside that leads outside is outside."""
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert "leaves" in _refused(tmp_path / "root" / "link" / "a.txt", root=tmp_path / "root")


def test_a_path_inside_the_root_is_fine(tmp_path: Path) -> None:
    """The root itself and folders below it may be written to."""
    (tmp_path / "below").mkdir()
    OutputFile.at(tmp_path / "below" / "a.txt", root=tmp_path).write("a")
    assert (tmp_path / "below" / "a.txt").read_text() == "a"


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    """With --force the link is replaced, not the file it leads to; without it, even a dangling link counts as taken."""
    (tmp_path / "target").write_text("keep me")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    OutputFile.at(tmp_path / "link", force=True).write("new")
    assert (tmp_path / "target").read_text() == "keep me"
    assert (tmp_path / "link").read_text() == "new"
    assert "exists" in _refused(tmp_path / "dangling")


def test_folders_are_no_files(tmp_path: Path) -> None:
    """A folder in the file's place, or a missing one around it, is named."""
    (tmp_path / "folder").mkdir()
    assert "folder" in _refused(tmp_path / "folder", force=True)
    assert "folder" in _refused(Path(tmp_path.root))
    assert "No such file" in _refused(tmp_path / "missing" / "a.txt")
    assert "No such file" in _refused(tmp_path / "a.txt", root=tmp_path / "missing")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """When publishing fails, here because a folder took the name, no draft is left behind."""
    output = OutputFile.at(tmp_path / "answer.txt", force=True)
    (tmp_path / "answer.txt").mkdir()
    with pytest.raises(CommandError) as caught:
        output.write("text")
    assert caught.value.code is ExitCode.FAILED
    assert os.listdir(tmp_path) == ["answer.txt"]
    assert os.listdir(tmp_path / "answer.txt") == []
