"""Writes an answer to a file: whole or not at all, inside the folder it may not leave, never over another file unless told to."""

import contextlib
import errno
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from services.cli.exit_codes import CommandError, ExitCode

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A place that was checked before anything was asked or paid."""

    folder: Path
    """Resolved: no link in it leads anywhere else any more."""
    name: str
    force: bool

    @classmethod
    def at(cls, path: Path, *, root: Path | None = None, force: bool = False) -> "OutputFile":
        """Check a path. Raises `CommandError` where it leaves the root, where its folder does not exist, or where it is taken."""
        try:
            folder = path.parent.resolve(strict=True)
            allowed = None if root is None else root.resolve(strict=True)
        except OSError as error:
            raise CommandError(f"{error.filename}: {os.strerror(error.errno or errno.ENOENT)}", ExitCode.WRONG) from None
        if path.name in {"", ".", ".."}:
            raise CommandError(f"{path}: is a folder", ExitCode.WRONG)
        if allowed is not None and not folder.is_relative_to(allowed):
            raise CommandError(f"{path}: leaves {root}", ExitCode.WRONG)
        target = folder / path.name
        if target.is_dir():
            raise CommandError(f"{path}: is a folder", ExitCode.WRONG)
        if not force and os.path.lexists(target):
            raise CommandError(f"{path}: exists; --force overwrites it", ExitCode.WRONG)
        return cls(folder, path.name, force)

    def write(self, text: str) -> None:
        """Write the text. A crash leaves the old file or none, never a part; a file that appeared meanwhile is not overwritten."""
        # Everything below happens relative to the folder that was checked, even if its name leads elsewhere by now.
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        draft = f".{self.name[:100]}.{secrets.token_hex(8)}.tmp"
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
                self._publish(draft, folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=folder)
            os.fsync(folder)
        except FileExistsError:
            raise CommandError(f"{self.folder / self.name}: exists; --force overwrites it", ExitCode.WRONG) from None
        except OSError as error:
            raise CommandError(f"{self.folder / self.name}: {os.strerror(error.errno or errno.EIO)}") from None
        finally:
            os.close(folder)

    def _publish(self, draft: str, folder: int) -> None:
        if not self.force:
            try:
                # A link is refused where the name is taken, which a rename is not.
                os.link(draft, self.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # No hard links here; take the name first, then fill it.
                os.close(os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder))
            else:
                return
        os.replace(draft, self.name, src_dir_fd=folder, dst_dir_fd=folder)
