"""The lock of a batch's output."""

from pathlib import Path

import pytest

from services.cli.batch_lock import locked
from services.cli.exit_codes import CommandError, ExitCode
from tests.support.batches import names_in


def test_it_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    """Whoever comes second is told, and takes nothing away from the first."""
    output = tmp_path / "out"
    for _ in range(2):
        with locked(output):
            for _ in range(2):
                with pytest.raises(CommandError, match="another batch is writing to it") as caught, locked(output):
                    pass
                assert caught.value.code is ExitCode.UNAVAILABLE
        assert names_in(tmp_path) == []


def test_what_a_killed_batch_left_does_not_lock(tmp_path: Path) -> None:
    """The file stays behind, its lock does not."""
    (tmp_path / ".out.ensemble-lock").touch()
    with locked(tmp_path / "out"):
        pass
    assert names_in(tmp_path) == []


def test_it_follows_no_link(tmp_path: Path) -> None:
    """One that was put there could make any file."""
    (tmp_path / ".out.ensemble-lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / "out"):
        pass
    assert not (tmp_path / "elsewhere").exists()
