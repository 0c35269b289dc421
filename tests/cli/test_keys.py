"""`ensemble keys`: what it prints where, and that the key is nowhere else."""

import asyncio
import json
from pathlib import Path

import pytest

from services.chassis.api_keys import is_key, new_key, sha256_of
from services.chassis.configuration import load_configuration, read_keys_file
from tests.support.command_line import ensemble

KEY = new_key(bytes)


async def test_a_new_key_stands_alone_on_standard_output(tmp_path: Path) -> None:
    """So that it can be piped; on standard error is the line for the configuration, which lets the key in."""
    done = await ensemble("keys", "new", "--id", "laptop", folder=tmp_path)
    key = done.text.removesuffix("\n")
    assert (done.code, is_key(key)) == (0, True)
    assert done.err == f"- {{sha256: {sha256_of(key)}, id: laptop}}\n"
    file = tmp_path / "ensemble.yaml"
    await asyncio.to_thread(file.write_text, f"tenants:\n  a:\n    keys:\n      {done.err}", "utf-8")
    (entry,) = (await asyncio.to_thread(load_configuration, file, environ={})).tenants["a"].keys or ()
    assert (entry.sha256, entry.id) == (sha256_of(key), "laptop")


async def test_each_key_is_another() -> None:
    """Whoever runs it twice has two."""
    one, other = await asyncio.gather(ensemble("keys", "new"), ensemble("keys", "new"))
    assert one.out != other.out


async def test_as_json_it_is_one_object(tmp_path: Path) -> None:
    """With nothing on standard error."""
    done = await ensemble("keys", "new", "--json", "--tenant", "a", "--file", "keys.yaml", "--id", "x", folder=tmp_path)
    said = json.loads(done.text)
    assert is_key(said["key"])
    assert said == {"key": said["key"], "sha256": sha256_of(said["key"]), "id": "x", "tenant": "a", "file": "keys.yaml"}
    assert done.err == ""
    said = json.loads((await ensemble("keys", "new", "--json")).text)
    assert (said["id"], said["tenant"], said["file"]) == (None, None, None)


async def test_it_adds_the_hash_and_never_the_key_to_a_file(tmp_path: Path) -> None:
    """The key is written nowhere but to standard output."""
    file = tmp_path / "keys.yaml"
    done = await ensemble("keys", "new", "--tenant", "a", "--file", "keys.yaml", folder=tmp_path)
    assert done.err == "added to keys.yaml for the tenant a\n"
    key = done.text.strip()
    keys = await asyncio.to_thread(read_keys_file, file)
    assert [entry.sha256 for entry in keys["a"]] == [sha256_of(key)]
    assert key not in await asyncio.to_thread(file.read_text, "utf-8")
    assert await asyncio.to_thread(lambda: [one.name for one in tmp_path.iterdir()]) == ["keys.yaml"]


async def test_a_tenant_is_held_against_a_configuration_that_is_given(tmp_path: Path) -> None:
    """Before a key is shown that would work nowhere."""
    await asyncio.to_thread((tmp_path / "mine.yaml").write_text, "tenants: {team-a: {}}", "utf-8")
    done = await ensemble("keys", "new", "--tenant", "taem-a", "--file", "keys.yaml", "--config", "mine.yaml", folder=tmp_path)
    assert (done.code, done.out) == (2, b"")
    assert done.err == '--tenant "taem-a" names no tenant; did you mean "team-a"?\n'
    assert (await ensemble("keys", "new", "--tenant", "team-a", "--file", "keys.yaml", "--config", "mine.yaml", folder=tmp_path)).code == 0


@pytest.mark.parametrize(
    "arguments",
    [("--tenant", "a"), ("--file", "keys.yaml"), ("--config", "mine.yaml"), ("--id", "a b"), ("--tenant", "a b", "--file", "keys.yaml")],
)
async def test_wrong_usage_shows_no_key(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """It is told as everywhere, as JSON too, and nothing is written."""
    done = await ensemble("keys", "new", *arguments, folder=tmp_path)
    assert (done.code, done.out) == (2, b"")
    assert done.err
    assert "ensemble_" not in done.err
    said = json.loads((await ensemble("keys", "new", *arguments, "--json", folder=tmp_path)).text)
    assert said["error"]["code"] == "WRONG"
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


async def test_a_file_that_cannot_be_written_shows_no_key(tmp_path: Path) -> None:
    """A key that was shown works."""
    done = await ensemble("keys", "new", "--tenant", "a", "--file", "none/keys.yaml", folder=tmp_path)
    assert (done.code, done.out, done.err) == (1, b"", "none/keys.yaml: No such file or directory\n")


async def test_the_hash_of_a_key_is_told() -> None:
    """The key comes over standard input, for arguments are seen by everybody on the machine."""
    made = await ensemble("keys", "new")
    done = await ensemble("keys", "hash", stdin=made.out)
    assert (done.code, done.err) == (0, "")
    assert done.text == f"{sha256_of(made.text.strip())}\n"
    assert json.loads((await ensemble("keys", "hash", "--json", stdin=made.out)).text) == {"sha256": sha256_of(made.text.strip())}


@pytest.mark.parametrize("text", [b"", b"secret", KEY.encode()[:-1], f"{KEY} {KEY}".encode(), f"{KEY[:-1]}B".encode(), b"\xff\xfe", b"A" * 5000])
async def test_what_is_no_key_has_no_hash(text: bytes) -> None:
    """And is not repeated."""
    done = await ensemble("keys", "hash", stdin=text)
    assert (done.code, done.out) == (2, b"")
    assert done.err == "standard input holds no key of the form that `ensemble keys new` makes\n"
