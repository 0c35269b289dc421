"""Writes an answer to a file: whole or not at all, inside the folder it may not leave, never over another file unless told to.

    check path --asked, answered--> open folder --> draft beside it --> fsync --> link (or, forced, rename) to the name --> fsync folder

A crash leaves the old file or none under the name, at worst with a draft beside it, whose name begins with a dot.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cli.exit_codes import CommandError, ExitCode

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSED = getattr(os, "O_PATH", 0) | _FOLDER
"""Where the system can, a folder on the way need not be readable."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A place that was checked before anything was asked or paid."""

    folder: Path
    """Resolved: no link in it leads anywhere else."""
    name: str
    force: bool

    @classmethod
    def at(cls, path: Path, *, root: Path | None = None, force: bool = False) -> "OutputFile":
        """Check a path. Raises `CommandError` where it leaves the root, where its folder does not exist, or where it is taken."""
        try:
            folder = _resolved(path.parent)
            allowed = None if root is None else _resolved(root)
            if path.name in {"", ".", ".."}:
                raise CommandError(f"{path}: is a folder", ExitCode.WRONG)
            if allowed is not None and not folder.is_relative_to(allowed):
                raise CommandError(f"{path}: leaves {root}", ExitCode.WRONG)
            _check_target(folder / path.name, force=force)
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}", ExitCode.WRONG) from None
        return cls(folder, path.name, force)

    def write(self, text: str, *, link: Callable[..., Any] = os.link) -> None:
        """Write the text as UTF-8. Raises `CommandError`; a file that appeared meanwhile is not overwritten."""
        try:
            # Everything below happens relative to the folder that was checked, even if its name leads elsewhere by now.
            with _opened(self.folder) as folder:
                self._write(text.encode(), folder, link)
        except FileExistsError:
            raise CommandError(f"{self.folder / self.name}: exists; --force overwrites it", ExitCode.WRONG) from None
        except OSError as error:
            raise CommandError(f"{self.folder / self.name}: {error.strerror}") from None

    def _write(self, content: bytes, folder: int, link: Callable[..., Any]) -> None:
        draft = f".ensemble-{secrets.token_hex(8)}.tmp"
        handle = os.open(draft, _NEW_FILE, 0o666, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                self._keep_permissions(file.fileno(), folder)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._publish(draft, folder, link)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
        os.fsync(folder)

    def _keep_permissions(self, draft: int, folder: int) -> None:
        """Give the draft what the file had that it replaces: what was private stays so."""
        with suppress(FileNotFoundError):
            old = os.stat(self.name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(old.st_mode):
                os.fchmod(draft, stat.S_IMODE(old.st_mode) & 0o777)

    def _publish(self, draft: str, folder: int, link: Callable[..., Any]) -> None:
        if not self.force:
            try:
                # A link is refused where the name is taken, which a rename is not.
                link(draft, self.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # No hard links here; take the name first, then fill it.
                os.close(os.open(self.name, _NEW_FILE, 0o666, dir_fd=folder))
            else:
                return
        os.replace(draft, self.name, src_dir_fd=folder, dst_dir_fd=folder)


def _resolved(folder: Path) -> Path:
    # Unlike Path.resolve, which has an error of its own for links that lead in circles.
    found = Path(os.path.realpath(folder, strict=True))
    if not found.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    return found


def _check_target(target: Path, *, force: bool) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if target.is_dir():
        raise CommandError(f"{target}: is a folder", ExitCode.WRONG)
    if not force:
        raise CommandError(f"{target}: exists; --force overwrites it", ExitCode.WRONG)
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        # A device or a pipe would not be written to but replaced.
        raise CommandError(f"{target}: is not a file", ExitCode.WRONG)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a resolved folder step by step from the top, following no link: one that was put in its way meanwhile could lead out of the root."""
    handle = os.open(folder.anchor, _PASSED)
    try:
        for step in folder.relative_to(folder.anchor).parts:
            handle = _below(handle, step, _PASSED)
        # Once more, because what was only passed cannot be synchronised.
        handle = _below(handle, ".", _FOLDER)
        yield handle
    finally:
        os.close(handle)


def _below(handle: int, step: str, flags: int) -> int:
    below = os.open(step, flags, dir_fd=handle)
    os.close(handle)
    return below
