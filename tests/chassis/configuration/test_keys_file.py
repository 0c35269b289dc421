"""The keys file: what is read of it, and what is wrong with it."""

import json
from pathlib import Path

import pytest

from services.chassis.api_keys import new_key, sha256_of
from services.chassis.configuration import ConfigurationError, KeySection, TenantSection, read_keys_file
from services.chassis.configuration.document import MOST_BYTES
from services.chassis.configuration.keys_file import keys_in

KEY = new_key(bytes)
ONE, TWO, THREE = (sha256_of(text) for text in ("one", "two", "three"))
TENANTS = {"a": TenantSection(keys=(KeySection(sha256=THREE),)), "b": TenantSection()}


def _problems(text: str, tenants: dict[str, TenantSection] | None = TENANTS) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigurationError) as refusal:
        keys_in(text.encode(), "keys.yaml", tenants)
    assert KEY[9:20] not in str(refusal.value)
    assert refusal.value.__context__ is None or KEY not in repr(refusal.value.__context__)
    return [(problem.path, problem.source, problem.message) for problem in refusal.value.problems]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", {}),
        ("# nobody yet\n", {}),
        (f"a:\n  - {{sha256: {ONE}, id: laptop}}\n  - sha256: {TWO}\nb:\n", {"a": [(ONE, "laptop"), (TWO, None)], "b": []}),
        (json.dumps({"b": [{"sha256": ONE}], "a": []}), {"b": [(ONE, None)], "a": []}),
    ],
)
def test_what_it_says(tmp_path: Path, text: str, keys: dict[str, list[tuple[str, str | None]]]) -> None:
    """Keys by their tenants; one with nothing below it has none, so that taking out the last key leaves a file that is right."""
    file = tmp_path / "keys.yaml"
    file.write_text(text, encoding="utf-8")
    read = read_keys_file(file, TENANTS)
    assert {tenant: [(key.sha256, key.id) for key in listed] for tenant, listed in read.items()} == keys


@pytest.mark.parametrize(
    ("text", "path", "place", "words"),
    [
        ("a: [", "keys file", ", line 1, column 5", "is not well-formed: expected the node content, but found '<stream end>'"),
        ("- x", "keys file", "", "must be a mapping of tenants to their keys"),
        ("x", "keys file", "", "must be a mapping of tenants to their keys"),
        ("a: x", "a", ", line 1, column 1", "must be a list"),
        ("a:\n- x", "a[0]", ", line 2, column 3", "must be {sha256: HASH} or {sha256: HASH, id: NAME}; a key itself never stands in the configuration"),
        (f"a:\n- {{sha256: {ONE}, sha265: x}}", "a[0].sha265", ", line 2, column 78", 'is not known; did you mean "sha256"?'),
        (f"a:\n- {{sha256: {ONE}, zzz: x}}", "a[0].zzz", ", line 2, column 78", "is not known; known are id, sha256"),
        (f"a: [{{sha256: {ONE}}}]\na: []", "a", ", line 2, column 1", "stands twice; first at line 1, column 1"),
        ("'a b': []", '["a b"]', ", line 1, column 1", 'must be a name: 1 to 60 of a-z, A-Z, 0-9, "-", "_" and ".", the first one a letter or figure'),
        ("A: []", "A", ", line 1, column 1", 'names no tenant; did you mean "a"?'),
        ("zzz: []", "zzz", ", line 1, column 1", "names no tenant; known are a, b"),
        (f"a: [{{sha256: {ONE}}}, {{sha256: {ONE}}}]", "a[1].sha256", ", line 1, column 82", "stands twice"),
        (f"a: [{{sha256: {ONE}}}]\nb: [{{sha256: {ONE}}}]", "b[0].sha256", ", line 2, column 6", 'stands with the tenant "a" already'),
        (f"a: [{{sha256: {THREE}}}]", "a[0].sha256", ", line 1, column 6", 'stands with the tenant "a" in the configuration already'),
        (f"b: [{{sha256: {THREE}}}]", "b[0].sha256", ", line 1, column 6", 'stands with the tenant "a" in the configuration already'),
    ],
)
def test_what_is_wrong_with_it(text: str, path: str, place: str, words: str) -> None:
    """With its path, its place and words."""
    assert _problems(text) == [(path, f"keys.yaml{place}", words)]


@pytest.mark.parametrize(
    "text",
    [f"a: [{{sha256: {KEY}}}]", f"a: [{KEY}]", f"a: [{{{KEY}: x}}]", f"{KEY}: []", f"{KEY}: x", f"a: [{{sha256: {ONE}, id: {KEY}}}]", f"a: '{KEY}", f"{KEY}"],
)
def test_a_key_that_is_pasted_in_is_not_repeated(text: str) -> None:
    """Not even in what the error came from."""
    assert _problems(text)


def test_everything_is_told_at_once() -> None:
    """A second reading finds nothing more of the same kind."""
    assert [path for path, _, _ in _problems("a: [{sha256: x}, 5]\nb: x")] == ["a[0].sha256", "a[1]", "b"]
    assert [path for path, _, _ in _problems(f"x: []\nb: [{{sha256: {THREE}}}]\ny: []")] == ["x", "y", "b[0].sha256"]


def test_without_a_configuration_any_tenant_will_do() -> None:
    """Only what is in the file itself is then held against itself."""
    assert set(keys_in(f"x: [{{sha256: {THREE}}}]".encode(), "keys.yaml")) == {"x"}
    assert _problems(f"x: [{{sha256: {ONE}}}]\ny: [{{sha256: {ONE}}}]", None)


def test_a_file_that_cannot_be_read_is_told_with_its_name(tmp_path: Path) -> None:
    """One that is not there, a folder, and one that is too large to be meant."""
    for file, words in ((tmp_path / "none.yaml", "cannot be read (FileNotFoundError)"), (tmp_path, "cannot be read (IsADirectoryError)")):
        with pytest.raises(ConfigurationError) as refusal:
            read_keys_file(file)
        assert str(refusal.value) == f"gateway.keys_file ({file}): the file {words}"
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(ConfigurationError, match="is larger than"):
        read_keys_file(large)
