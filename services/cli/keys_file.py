"""Adds a key's hash to a keys file: whole or not at all, and without losing what another command adds at the same time.

    lock the folder --> read and check --> draft beside it --> fsync --> rename to the name --> fsync the folder

A crash leaves the file as it was, at worst with a draft beside it, whose name begins with a dot. The lock is let go by the system when the process ends.
"""

import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from services.chassis.configuration import KeySection, TenantSection
from services.chassis.configuration.document import MOST_BYTES, plain_value, read_document
from services.chassis.configuration.keys_file import Keys, keys_in
from services.cli.exit_codes import CommandError, ExitCode

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OWNER = 0o600
_AROUND = 64
"""Room for what stands around a new entry: indentation, ends of lines."""
_ENTRY = re.compile(r"(?P<indent>[ ]*)- ")
_LINE = re.compile(r"line (?P<number>[0-9]+),")


def key_line(sha256: str, name: str | None) -> str:
    """Return a key as the list of a tenant's keys has it, for example "- {sha256: …, id: laptop}". Raises `CommandError` for a name that will not do."""
    try:
        key = KeySection(sha256=sha256, id=name)
    except ValidationError as refusal:
        raise CommandError(f"--id {refusal.errors(include_url=False, include_input=False)[0]['msg']}", ExitCode.WRONG) from None
    return f"- {{sha256: {sha256}}}" if key.id is None else f"- {{sha256: {sha256}, id: {_written(key.id)}}}"


def add_key(file: Path, tenant: str, line: str, tenants: Mapping[str, TenantSection] | None = None) -> None:
    """Put a key first among a tenant's; only the owner may read the file, and its group where that could before.

    With the tenants of a configuration, what would not go with them is refused. Raises `ConfigurationError` where the file is wrong before or would be
    after, and `CommandError` where it would be too large or cannot be written.
    """
    # The file itself is replaced, not a link that leads to it.
    target = Path(os.path.realpath(file))
    try:
        with _locked(target.parent) as folder:
            old = _content(target.name, folder)
            keys = keys_in(old, str(file))
            if len(old) + len(tenant) + len(line) + _AROUND > MOST_BYTES:
                raise CommandError(f"{file}: would be larger than {MOST_BYTES} bytes")
            content = _with_key(old, keys, tenant, line)
            keys_in(content, str(file), tenants)
            _replace(target.name, folder, content)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a folder for one who writes keys files in it; others wait."""
    folder = os.open(path, _FOLDER)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)


def _content(name: str, folder: int) -> bytes:
    try:
        handle = os.open(name, _OLD, dir_fd=folder)
    except FileNotFoundError:
        return b""
    with os.fdopen(handle, "rb") as opened:
        return opened.read(MOST_BYTES + 1)


def _replace(name: str, folder: int, content: bytes) -> None:
    draft = f".ensemble-{secrets.token_hex(8)}.tmp"
    handle = os.open(draft, _NEW, _OWNER, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as opened:
            _keep_readers(opened.fileno(), name, folder)
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        raise
    os.fsync(folder)


def _keep_readers(draft: int, name: str, folder: int) -> None:
    """Leave the file to whom it belonged, as far as this process may, so that the gateway can still read it."""
    # Whatever the mask of new files is.
    os.fchmod(draft, _OWNER)
    with suppress(FileNotFoundError, PermissionError):
        old = os.stat(name, dir_fd=folder)
        os.fchown(draft, old.st_uid, old.st_gid)
        os.fchmod(draft, _OWNER | stat.S_IMODE(old.st_mode) & stat.S_IRGRP)


def _with_key(old: bytes, keys: Keys, tenant: str, line: str) -> bytes:
    """Return the file with a key put in: among its lines as they stand, comments and all, or where that cannot be, written anew."""
    shown = [(name, [entry.model_dump(exclude_none=True) for entry in entries]) for name, entries in keys.items()]
    wanted = dict(shown)
    wanted[tenant] = [*read_document(line.encode(), "").tree, *wanted.get(tenant, [])]  # type: ignore[misc]  # A list of one mapping.
    for text in _inserted(old.decode("utf-8-sig"), tenant, line):
        document = read_document(text.encode(), "")
        if not document.problems and _filled(document.tree) == wanted:
            return text.encode()
    anew = "".join(f"{_written(name)}:\n" + "".join(f"  - {_flow(entry)}\n" for entry in entries) for name, entries in wanted.items())
    return anew.encode()


def _inserted(text: str, tenant: str, line: str) -> Iterator[str]:
    """Yield the text with the line before the tenant's first key, behind the tenant's name, and at the end; not every one of them need mean what it should."""
    lines = text.splitlines(keepends=True)
    places = read_document(text.encode(), "").places
    if (first := _number(places.get((tenant, 0)))) is not None and (entry := _ENTRY.match(lines[first])) is not None:
        yield "".join([*lines[:first], f"{entry['indent']}{line}\n", *lines[first:]])
    if (name := _number(places.get((tenant,)))) is not None:
        yield "".join([*lines[: name + 1], f"  {line}\n", *lines[name + 1 :]])
    else:
        yield f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{_written(tenant)}:\n  {line}\n"


def _number(place: str | None) -> int | None:
    found = _LINE.match(place or "")
    return None if found is None else int(found["number"]) - 1


def _filled(tree: object) -> object:
    return {name: [] if entries is None else entries for name, entries in tree.items()} if isinstance(tree, dict) else tree


def _flow(entry: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{field}: {_written(value)}" for field, value in entry.items()) + "}"


def _written(text: str) -> str:
    """Return a name as it stands in YAML: quoted where it would be taken for a number or a word of YAML's."""
    return text if plain_value(text) is text else json.dumps(text)
