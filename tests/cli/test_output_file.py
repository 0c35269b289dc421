"""Output files: whole or not at all, inside their root, never over another file unless told to."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_a_folder_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    """Between check and write somebody may put a link in the folder's place, or in that of one above it; nothing is written where it leads."""
    for swapped in ("root/inside", "root"):
        (tmp_path / "root" / "inside").mkdir(parents=True, exist_ok=True)
        (tmp_path / "elsewhere" / "inside").mkdir(parents=True, exist_ok=True)
        output = OutputFile.at(tmp_path / "root" / "inside" / "a.txt", root=tmp_path / "root")
        (tmp_path / swapped).rename(tmp_path / "moved")
        (tmp_path / swapped).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CommandError) as caught:
            output.write("text")
        assert caught.value.code is ExitCode.FAILED
        assert sorted(path.name for path in (tmp_path / "elsewhere").rglob("*")) == ["inside"]
        (tmp_path / swapped).unlink()
        (tmp_path / "moved").rename(tmp_path / swapped)


def test_a_link_to_the_root_and_links_inside_are_fine(tmp_path: Path) -> None:
    """What counts is where the path ends up."""
    (tmp_path / "root" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "shortcut").symlink_to("below")
    OutputFile.at(tmp_path / "link" / "shortcut" / "a.txt", root=tmp_path / "link").write("a")
    assert (tmp_path / "root" / "below" / "a.txt").read_text() == "a"


def test_a_sibling_with_the_roots_name_in_front_is_outside(tmp_path: Path) -> None:
    """Folders are compared by their steps, not letter by letter."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root-2").mkdir()
    assert "leaves" in _refused(tmp_path / "root-2" / "a.txt", root=tmp_path / "root")


def test_links_that_lead_in_circles_are_named(tmp_path: Path) -> None:
    """As are roots that are no folder."""
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").write_text("")
    assert "symbolic links" in _refused(tmp_path / "circle" / "a.txt")
    assert "Not a directory" in _refused(tmp_path / "file" / "a.txt")
    assert "Not a directory" in _refused(tmp_path / "a.txt", root=tmp_path / "file")


def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    """With --force a rename would put a file in their place."""
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in _refused(tmp_path / "pipe", force=True)
    assert "not a file" in _refused(Path("/dev/null"), force=True)


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    """What replaces a file has its permissions; special bits are not taken over."""
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o4600)
    OutputFile.at(path, force=True).write("new")
    assert (stat.S_IMODE(path.stat().st_mode), path.read_text()) == (0o600, "new")


def test_a_long_name_is_fine(tmp_path: Path) -> None:
    """The draft's name does not grow with the file's, and a name that the system does not take is named."""
    name = "\u00e9" * 127
    OutputFile.at(tmp_path / name).write("text")
    assert (tmp_path / name).read_text() == "text"
    assert "too long" in _refused(tmp_path / (name * 2))


def _no_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "no links here")


def test_where_there_are_no_hard_links_the_name_is_taken_first(tmp_path: Path) -> None:
    """As on file systems of memory cards: still whole, and still never over another file."""
    output = OutputFile.at(tmp_path / "a.txt")
    output.write("text", link=_no_links)
    assert (tmp_path / "a.txt").read_text() == "text"
    with pytest.raises(CommandError, match="exists"):
        output.write("again", link=_no_links)
    assert (tmp_path / "a.txt").read_text() == "text"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    """Neither the name nor a draft."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CommandError, match="No space left"):
        OutputFile.at(tmp_path / "a.txt").write("text", link=full)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_crash_before_the_end_leaves_what_was_there(tmp_path: Path, force: bool) -> None:
    """The process is killed when everything is written but not yet published: under the name stands the old file, or none."""
    path = tmp_path / "a.txt"
    if force:
        path.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from services.cli import output_file\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"output_file.OutputFile.at(Path(sys.argv[1]), force={force}).write('new' * 100_000)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert (path.read_text() if force else path.exists()) == ("old" if force else False)
