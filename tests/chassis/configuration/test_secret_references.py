"""Secrets: fetched where they are needed, shown nowhere."""

import pickle
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.chassis.configuration import Configuration, ConfigurationError, configuration_hash, load_configuration, render
from services.chassis.configuration.secret_references import MOST_SECRET_BYTES
from tests.chassis.configuration.conftest import Load, Refused

SECRET = "sk-Planted-0123456789"
SHAPE = "must be {env: NAME}, a variable's name in capitals, or {file: PATH}; a secret itself never stands in the configuration"


def with_key(api_key: str, *, used: bool = True, more: str = "") -> str:
    """Return a provider with such a key, and a profile that needs it or does not."""
    member = "m" if used else "smollm2"
    return (
        f"providers: {{p: {{kind: openai, base_url: 'http://x', api_key: {api_key}}}}}\n"
        f"models: {{m: {{provider: p, name: x, {more}}}}}\n"
        f"profiles: {{q: {{strategy: single, members: [{{model: {member}}}]}}}}\n"
    )


def key_of(configuration: object) -> str | None:
    """Return the key of the provider p."""
    api_key = configuration.providers["p"].api_key  # type: ignore[attr-defined]  # Any configuration.
    return None if api_key is None else api_key.get_secret_value()


def test_a_secret_comes_from_a_variable(load: Load) -> None:
    """The variable's value is the key; blanks around it are not."""
    assert key_of(load(with_key("{env: MY_KEY}"), {"MY_KEY": f" {SECRET}\n"})) == SECRET


@pytest.mark.parametrize("absolute", [True, False])
def test_a_secret_comes_from_a_file(load: Load, tmp_path: Path, absolute: bool) -> None:
    """The file's content is the key; a line end is not. A relative path starts in the folder."""
    (tmp_path / "key").write_text(f"{SECRET}\r\n")
    assert key_of(load(with_key(f"{{file: {tmp_path / 'key' if absolute else 'key'}}}"))) == SECRET


def test_a_file_takes_the_place_of_a_variable(load: Load, tmp_path: Path) -> None:
    """A reference from a higher layer is not mixed with the one below."""
    (tmp_path / "key").write_text(SECRET)
    assert key_of(load(with_key("{env: MY_KEY}"), {"ENSEMBLE__PROVIDERS__P__API_KEY__FILE": "key"})) == SECRET


def test_a_provider_may_want_no_key(load: Load) -> None:
    """Without a reference there is no key, and nothing to complain of."""
    provider = load().providers["local"]
    assert (provider.api_key, provider.api_key_problem) == (None, "")


@pytest.mark.parametrize(
    "literal",
    [
        SECRET,
        f'"{SECRET}"',
        "12345",
        f"[{SECRET}]",
        f"{{env: {SECRET}}}",
        f"{{env: '{SECRET}', file: x}}",
        f"{{value: {SECRET}}}",
        f"{{{SECRET}: x}}",
        "{env: lower_case}",
        "{env: [A]}",
        "{env: 8}",
        "{file: ''}",
        '{file: "a\\nb"}',
        f"{{file: {'x' * 4097}}}",
        "{}",
        "{env: null}",
        "{env: A, file: b}",
    ],
)
def test_a_literal_secret_is_refused_unrepeated(refused: Refused, literal: str) -> None:
    """A key that stands in the file, in whatever shape, is refused with what would be right and without itself."""
    problems = refused(with_key(literal))
    assert [(each.path, each.message) for each in problems] == [("providers.p.api_key", SHAPE)]
    assert SECRET not in str(problems)


def test_a_literal_secret_in_a_variable_is_refused_unrepeated(refused: Refused) -> None:
    """The settings' own variables hold no secrets either."""
    (problem,) = refused(with_key("{env: MY_KEY}"), {"MY_KEY": "x", "ENSEMBLE__PROVIDERS__P__API_KEY": SECRET})
    assert (problem.path, problem.message, problem.source) == ("providers.p.api_key", SHAPE, "ENSEMBLE__PROVIDERS__P__API_KEY")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_variable_is_told_where_the_key_is_needed(refused: Refused, value: str | None) -> None:
    """A profile whose model needs the key cannot work without it; an empty variable is as good as none."""
    (problem,) = refused(with_key("{env: MY_KEY}"), {} if value is None else {"MY_KEY": value})
    assert (problem.path, problem.message) == ("providers.p.api_key", "the environment variable MY_KEY is not set or empty")
    assert "line 1" in problem.source


def test_a_refiner_needs_its_key_too(refused: Refused) -> None:
    """A provider is in use where a profile's refiner is served by it."""
    text = with_key("{env: MY_KEY}", used=False).replace("members", "refiner: {model: m}, members")
    assert [problem.path for problem in refused(text)] == ["providers.p.api_key"]


def test_a_missing_secret_that_nobody_needs_is_no_error(load: Load) -> None:
    """A provider that no profile uses may lack its key; the reason is kept."""
    configuration = load(with_key("{env: MY_KEY}", used=False))
    assert key_of(configuration) is None
    assert configuration.providers["p"].api_key_problem == "the environment variable MY_KEY is not set or empty"


def test_secrets_that_are_missing_are_all_told(refused: Refused) -> None:
    """Each provider in use that lacks its key is a problem of its own."""
    providers, models = (
        ", ".join(each.format(name) for name in "ab")
        for each in ("{0}: {{kind: openai, base_url: 'http://x', api_key: {{env: KEY}}}}", "{0}: {{provider: {0}, name: x}}")
    )
    text = f"providers: {{{providers}}}\nmodels: {{{models}}}\nprofiles: {{q: {{strategy: single, members: [{{model: a}}, {{model: b}}]}}}}"
    assert [problem.path for problem in refused(text)] == ["providers.a.api_key", "providers.b.api_key"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the secret's file is empty"),
        (b"\n", "the secret's file is empty"),
        (f"{SECRET}\nmore".encode(), "the secret must be one line of visible ASCII characters"),
        (f"{SECRET} {SECRET}".encode(), "the secret must be one line of visible ASCII characters"),
        (f"{SECRET}é".encode(), "the secret must be one line of visible ASCII characters"),
        (f"{SECRET}\xff".encode("latin-1"), "the secret must be one line of visible ASCII characters"),
        (b"x" * (MOST_SECRET_BYTES + 1), f"the secret's file is larger than {MOST_SECRET_BYTES} bytes"),
    ],
)
def test_a_file_that_holds_no_usable_secret_is_told_unrepeated(refused: Refused, tmp_path: Path, content: bytes, message: str) -> None:
    """A secret that cannot stand in a header is refused without being shown."""
    (tmp_path / "key").write_bytes(content)
    problems = refused(with_key("{file: key}"))
    assert [(each.path, each.message) for each in problems] == [("providers.p.api_key", message)]
    assert SECRET not in str(problems)


@pytest.mark.parametrize(("path", "reason"), [("missing", "FileNotFoundError"), (".", "IsADirectoryError")])
def test_a_file_that_cannot_be_read_is_told(refused: Refused, path: str, reason: str) -> None:
    """The kind of failure is told; the path stands in the file."""
    (problem,) = refused(with_key(f"{{file: {path}}}"))
    assert (problem.path, problem.message) == ("providers.p.api_key", f"the secret's file cannot be read ({reason})")


@pytest.mark.parametrize("source", ["{env: MY_KEY}", "{file: key}"])
def test_a_secret_is_shown_nowhere(load: Load, tmp_path: Path, source: str) -> None:
    """Neither repr, str, dump, rendering nor hash of a configuration depends on a secret or holds it."""
    (tmp_path / "key").write_text(SECRET)
    configuration = load(with_key(source), {"MY_KEY": SECRET})
    (tmp_path / "key").write_text("other")
    other = load(with_key(source), {"MY_KEY": "other"})
    assert key_of(configuration) == SECRET
    shown = (repr(configuration), str(configuration), configuration.model_dump_json(by_alias=True), repr(configuration.model_dump()), render(configuration))
    assert not any(SECRET in each for each in (*shown, repr(configuration.providers["p"].api_key)))
    assert configuration_hash(configuration) == configuration_hash(other)


@pytest.mark.parametrize(
    ("api_key", "more"),
    [
        (SECRET, ""),
        (SECRET, "timeout: never"),
        (f"{{env: {SECRET}}}", "max_output_tokens: 0"),
        ("{env: MY_KEY}", "max_output_tokens: 0"),
        (f"!{SECRET}", ""),
        (f'"{SECRET}', ""),
    ],
)
def test_a_refusal_beside_a_secret_does_not_show_it(tmp_path: Path, api_key: str, more: str) -> None:
    """Whatever is wrong beside a secret, neither the error's text, its repr nor a traceback with its causes holds it."""
    (tmp_path / "ensemble.yaml").write_text(with_key(api_key, more=more))
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(environ={"MY_KEY": SECRET}, folder=tmp_path)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = (str(error), repr(error), repr(error.problems), "".join(traceback.format_exception(error)), str(pickle.dumps(error.problems)))
    assert not any(SECRET in each for each in shown)


@pytest.mark.parametrize(
    "tree", [{"gateway": {"grace": SECRET}}, {"gateway": SECRET}, {"providers": {"p": {"kind": SECRET, "base_url": SECRET, "api_key": SECRET}}}]
)
def test_the_library_s_own_refusal_does_not_show_values(tree: dict[str, object]) -> None:
    """Whoever validates a tree without our loader meets an error that repeats no value either."""
    with pytest.raises(ValidationError) as caught:
        Configuration.model_validate(tree)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", [f"https://user:{SECRET}@x", f"https://x?key={SECRET}", f"https://x y{SECRET}"])
def test_a_secret_in_a_url_is_refused_unrepeated(refused: Refused, url: str) -> None:
    """A URL with credentials would be shown wherever the provider is named."""
    problems = refused(f"providers: {{p: {{kind: openai, base_url: '{url}'}}}}")
    assert [problem.path for problem in problems] == ["providers.p.base_url"]
    assert SECRET not in str(problems)
