"""Keys that are added to a keys file: whole or not at all, none lost, and only for those to read who could before."""

import asyncio
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.api_keys import sha256_of
from services.chassis.configuration import ConfigurationError, TenantSection, read_keys_file
from services.chassis.configuration.document import MOST_BYTES
from services.chassis.configuration.keys_file import keys_in
from services.cli.exit_codes import CommandError
from services.cli.keys_file import _with_key, add_key, key_line
from tests.support.command_line import ensemble

HASHES = [sha256_of(str(number)) for number in range(8)]
NAMES = st.sampled_from(["a", "b", "1", "true", "null", "1e5", "x.y", "team-a"])


def _line(number: int, name: str | None = None) -> str:
    return key_line(HASHES[number], name)


def _said(file: Path) -> dict[str, list[tuple[int, str | None]]]:
    return {tenant: [(HASHES.index(key.sha256), key.id) for key in keys] for tenant, keys in read_keys_file(file).items()}


def test_each_key_is_put_first_among_its_tenants(tmp_path: Path) -> None:
    """The other entries stay; the file is made where there is none."""
    file = tmp_path / "keys.yaml"
    for number, (tenant, name) in enumerate([("a", "laptop"), ("b", None), ("a", None), ("b", "12")]):
        add_key(file, tenant, _line(number, name))
    assert _said(file) == {"a": [(2, None), (0, "laptop")], "b": [(3, "12"), (1, None)]}
    assert [name.name for name in tmp_path.iterdir()] == ["keys.yaml"]


def test_what_people_wrote_stays_as_they_wrote_it(tmp_path: Path) -> None:
    """Comments, blank lines and all, as long as a line can be put among them."""
    file = tmp_path / "keys.yaml"
    text = f"# Ask Mary.\nb: # the other team\n\n    # The old one.\n    - sha256: {HASHES[0]}\n      id: old\nc:\n\n# End"
    file.write_text(text, encoding="utf-8")
    add_key(file, "b", _line(1))
    add_key(file, "c", _line(2))
    add_key(file, "d", _line(3))
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line in text.splitlines()] == text.splitlines()
    assert len(lines) == len(text.splitlines()) + 4
    assert _said(file) == {"b": [(1, None), (0, "old")], "c": [(2, None)], "d": [(3, None)]}


@given(
    st.dictionaries(NAMES, st.lists(st.tuples(st.sampled_from([None, "x", "7", "no"])), max_size=2), max_size=3),
    NAMES,
    st.sampled_from([None, "laptop", "1", "true"]),
    st.sampled_from(["block", "flow", "mixed", "odd"]),
)
def test_no_entry_is_lost_however_the_file_is_written(tenants: dict[str, list[tuple[str | None]]], tenant: str, name: str | None, style: str) -> None:
    """And exactly one is added: first among the tenant's."""
    numbers = iter(range(1, 8))
    entries = {each: [(next(numbers), id_) for (id_,) in keys] for each, keys in tenants.items()}
    text = _written(entries, style)
    before = {each: [(key.sha256, key.id) for key in keys] for each, keys in keys_in(text.encode(), "").items()}
    after = {
        each: [(key.sha256, key.id) for key in keys]
        for each, keys in keys_in(_with_key(text.encode(), keys_in(text.encode(), ""), tenant, _line(0, name)), "").items()
    }
    assert after == {**before, tenant: [(HASHES[0], name), *before.get(tenant, [])]}


def _written(entries: dict[str, list[tuple[int, str | None]]], style: str) -> str:
    def entry(number: int, name: str | None) -> str:
        return f'{{"sha256": "{HASHES[number]}"' + ("}" if name is None else f', "id": "{name}"}}')

    flow = {tenant: "[" + ", ".join(entry(*key) for key in keys) + "]" for tenant, keys in entries.items()}
    if style == "flow":
        return "{" + ", ".join(f'"{tenant}": {keys}' for tenant, keys in flow.items()) + "}\n"
    if style == "mixed":
        return "---\n" + "".join(f'"{tenant}":\n  {keys}\n' for tenant, keys in flow.items())
    if style == "odd":
        return "".join(f"'{tenant}'  :\n" + "".join(f"-   {entry(*key)}\n" for key in keys) for tenant, keys in entries.items()) + ("...\n" if entries else "")
    return "".join(f'"{tenant}":\n' + "".join(f"  - {entry(*key)}\n" for key in keys) for tenant, keys in entries.items())


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the mask for new files; the group keeps reading where it could, and nobody else does."""
    file = tmp_path / "keys.yaml"
    before = os.umask(0)
    try:
        add_key(file, "a", _line(0))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        for number, (mode, then) in enumerate([(0o666, 0o640), (0o640, 0o640), (0o600, 0o600), (0o444, 0o640)], start=1):
            file.chmod(mode)
            add_key(file, "a", _line(number))
            assert stat.S_IMODE(file.stat().st_mode) == then
    finally:
        os.umask(before)


def test_a_link_goes_on_leading_to_the_file(tmp_path: Path) -> None:
    """The file itself is replaced, where it is."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = tmp_path / "keys.yaml"
    link.symlink_to(folder / "real.yaml")
    for number in range(2):
        add_key(link, "a", _line(number))
    assert link.is_symlink()
    assert _said(folder / "real.yaml") == {"a": [(1, None), (0, None)]}


@pytest.mark.parametrize(
    ("text", "tenant", "words"),
    [
        ("a: [", "a", "is not well-formed"),
        ("- x", "a", "must be a mapping of tenants"),
        ("", "a b", "must be a name"),
        ("", "b", 'names no tenant; did you mean "ab"?'),
        (f"ab: [{{sha256: {HASHES[0]}}}]", "ab", "stands twice"),
    ],
)
def test_what_would_be_wrong_is_not_written(tmp_path: Path, text: str, tenant: str, words: str) -> None:
    """Nor is what is wrong already; the file stays as it was, and nothing beside it."""
    file = tmp_path / "keys.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        add_key(file, tenant, _line(0), {"ab": TenantSection()})
    assert file.read_text(encoding="utf-8") == text
    assert [one.name for one in tmp_path.iterdir()] == ["keys.yaml"]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A folder that is not there, one in the file's place, and a file that would be too large to be read."""
    with pytest.raises(CommandError, match="No such file"):
        add_key(tmp_path / "none" / "keys.yaml", "a", _line(0))
    with pytest.raises(CommandError, match="Is a directory"):
        add_key(tmp_path, "a", _line(0))
    file = tmp_path / "keys.yaml"
    file.write_text("#" * (MOST_BYTES - 20) + "\n", encoding="utf-8")
    with pytest.raises(CommandError, match="would be larger than"):
        add_key(file, "a", _line(0))
    assert [one.name for one in tmp_path.iterdir()] == ["keys.yaml"]


@pytest.mark.parametrize("name", ["a b", "", "ensemble_" + "A" * 43])
def test_a_name_that_will_not_do_is_refused(name: str) -> None:
    """As the configuration would."""
    with pytest.raises(CommandError, match="--id must"):
        key_line(HASHES[0], name)


async def test_none_is_lost_of_those_that_are_added_at_once(tmp_path: Path) -> None:
    """By processes and by threads; whoever reads meanwhile finds a whole file."""
    file = tmp_path / "keys.yaml"
    add_key(file, "a", _line(0))
    stop = False

    def read() -> int:
        reads = 0
        while not stop:
            read_keys_file(file)
            reads += 1
        return reads

    reading = asyncio.create_task(asyncio.to_thread(read))
    commands = [ensemble("keys", "new", "--tenant", f"t{number % 2}", "--file", str(file)) for number in range(4)]
    with ThreadPoolExecutor(8) as threads:
        added = list(threads.map(lambda number: add_key(file, "b", key_line(sha256_of(f"b{number}"), None)), range(24)))
    ended = await asyncio.gather(*commands)
    stop = True
    assert await reading > 0
    assert len(added) == 24
    keys = {tenant: {key.sha256 for key in listed} for tenant, listed in read_keys_file(file).items()}
    assert keys["b"] == {sha256_of(f"b{number}") for number in range(24)}
    assert keys["t0"] | keys["t1"] == {sha256_of(one.text.strip()) for one in ended}
    assert keys["a"] == {HASHES[0]}
