"""Where settings come from, and which of them holds."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import run

import pytest

from services.chassis.configuration import Configuration, ConfigurationError, load_configuration
from tests.chassis.configuration.conftest import Load, Refused


def test_nothing_at_all_gives_the_packaged_settings(tmp_path: Path) -> None:
    """Without file, variable and override the embedded default holds."""
    configuration = load_configuration(environ={}, folder=tmp_path)
    assert configuration.gateway.listen == "127.0.0.1:50051"
    assert configuration.profiles["default"].strategy == "fusion"


def test_a_file_stands_over_the_packaged_settings(load: Load) -> None:
    """The user's file changes what it names and keeps the rest, inside a model too."""
    configuration = load("models: {smollm2: {timeout: 30s}}\ngateway: {grace: 3s}")
    assert configuration.models["smollm2"].timeout_seconds == 30.0
    assert configuration.models["smollm2"].max_output_tokens == 256
    assert (configuration.gateway.grace_seconds, configuration.limiter.grace_seconds) == (3.0, 10.0)


def test_a_variable_stands_over_the_file_and_an_override_over_both(load: Load) -> None:
    """Each tier wins over the one below it."""
    text, environ = "gateway: {grace: 1s}\nlimiter: {grace: 1s}\nrefiner: {grace: 1s}", {"ENSEMBLE__LIMITER__GRACE": "2s", "ENSEMBLE__REFINER__GRACE": "2s"}
    configuration = load(text, environ, overrides={"refiner": {"grace": "3s"}})
    assert (configuration.gateway.grace_seconds, configuration.limiter.grace_seconds, configuration.refiner.grace_seconds) == (1.0, 2.0, 3.0)


def test_the_named_file_wins_over_the_variable_and_that_over_the_folder(tmp_path: Path) -> None:
    """One file is read: the one that is named, else the one ENSEMBLE_CONFIG names, else ensemble.yaml in the folder; paths are relative to the folder."""
    for name, grace in (("named.yaml", 1), ("variable.yaml", 2), ("ensemble.yaml", 3)):
        (tmp_path / name).write_text(f"gateway: {{grace: {grace}s}}")
    environ = {"ENSEMBLE_CONFIG": "variable.yaml"}
    assert load_configuration(Path("named.yaml"), environ=environ, folder=tmp_path).gateway.grace_seconds == 1.0
    assert load_configuration(environ=environ, folder=tmp_path).gateway.grace_seconds == 2.0
    assert load_configuration(environ={}, folder=tmp_path).gateway.grace_seconds == 3.0


@pytest.mark.parametrize("text", ["", "# nothing\n", "gateway:\nmodels:\n"])
def test_a_file_that_says_nothing_changes_nothing(load: Load, tmp_path: Path, text: str) -> None:
    """An empty file, a comment, and headings with nothing below them are as good as no file."""
    assert load(text) == load_configuration(environ={}, folder=tmp_path / "elsewhere")


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A file somebody named must be there; the default one need not."""
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(Path("missing.yaml"), environ={}, folder=tmp_path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.message, problem.source) == ("", "the file cannot be read (FileNotFoundError)", str(tmp_path / "missing.yaml"))


def test_a_file_that_is_not_yaml_is_the_only_thing_told(refused: Refused, tmp_path: Path) -> None:
    """Of a broken file its place is told, and nothing that would follow from its absence."""
    (problem,) = refused("gateway: [1\nx: 2", {"ENSEMBLE__GATEWAY__GRACE": "wrong"})
    assert problem.path == ""
    assert problem.source == f"{tmp_path / 'ensemble.yaml'}, line 2, column 2"


@pytest.mark.parametrize("text", ["[a]", "just text", "8"])
def test_a_file_must_be_a_mapping(refused: Refused, text: str) -> None:
    """A list or a scalar at the root is refused."""
    (problem,) = refused(text)
    assert problem.message == "must be a mapping of sections"


def test_everything_wrong_is_told_at_once_with_its_source(refused: Refused, tmp_path: Path) -> None:
    """One reading finds problems of form, type, range and reference, in the file, in variables and in overrides."""
    problems = refused(
        "gateway: {grace: 10, grace: 1s}\nmodels:\n  m: {provider: lokal, name: x, timeout: 0s}\nprofiles: {default: {quorum: 9}}",
        {"ENSEMBLE__LIMITER__LISTEN": "nowhere", "ENSEMBLE__REFINER__REFLECTION": "[", "ENSEMBLE__REFINER__X": "1"},
        overrides={"orchestrator": {"refiner": "two words"}},
    )
    file = tmp_path / "ensemble.yaml"
    assert {(each.path, each.source) for each in problems} == {
        ("gateway.grace", f"{file}, line 1, column 22"),
        ("gateway.grace", f"{file}, line 1, column 11"),
        ("models.m.provider", f"{file}, line 3, column 7"),
        ("models.m.timeout", f"{file}, line 3, column 33"),
        ("profiles.default.quorum", f"{file}, line 4, column 22"),
        ("limiter.listen", "ENSEMBLE__LIMITER__LISTEN"),
        ("refiner.reflection", "ENSEMBLE__REFINER__REFLECTION"),
        ("refiner.x", "ENSEMBLE__REFINER__X"),
        ("orchestrator.refiner", "overrides"),
    }


def test_a_problem_of_form_alone_is_enough_to_refuse(refused: Refused) -> None:
    """A key that stands twice is refused even where both values would do."""
    (problem,) = refused("gateway: {grace: 1s, grace: 2s}")
    assert problem.path == "gateway.grace"
    assert problem.message.startswith("stands twice")


def test_the_error_s_text_has_a_line_for_each_problem(load: Load) -> None:
    """The text of the error is what a person is shown: path, source and words."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ={"ENSEMBLE__GATEWAY__GRACE": "1", "ENSEMBLE__GATEWAY__LISTEN": "x", "ENSEMBLE__": "1"})
    assert min(str(caught.value).splitlines()) == "configuration (ENSEMBLE__): must be ENSEMBLE__SECTION__KEY"
    assert len(str(caught.value).splitlines()) == 3


def test_judges_are_models_that_exist(load: Load, refused: Refused) -> None:
    """A judge that no model has the name of is refused at its place, with the nearest one; one that exists keeps its provider needed."""
    text = "profiles: {p: {strategy: rank, members: [{model: smollm2}], parameters: {judges: [smollm2, smollm]}}}"
    (problem,) = refused(text)
    assert (problem.path, problem.message) == ("profiles.p.parameters.judges[1]", 'names no model; did you mean "smollm2"?')
    text = """
      providers: {mine: {kind: openai, base_url: "http://x", api_key: {env: NOT_SET}}}
      models: {m: {provider: mine, name: x}}
      profiles: {p: {strategy: rank, members: [{model: smollm2}], parameters: {judges: [m]}}}
    """
    assert [problem.path for problem in refused(text)] == ["providers.mine.api_key"]


def test_self_moa_counts_its_calls_itself(load: Load) -> None:
    """Its quorum may be larger than what its member's samples say."""
    text = "profiles: {p: {strategy: self_moa, members: [{model: smollm2}], refiner: {model: smollm2}, quorum: 4, parameters: {samples: 5}}}"
    assert load(text).profiles["p"].quorum == 4


def test_strategies_are_only_checked_where_they_are_given(load: Load, refused: Refused) -> None:
    """Whoever knows the strategies has their names checked, with the nearest one named."""
    text = "profiles: {default: {strategy: fussion}}"
    assert load(text).profiles["default"].strategy == "fussion"
    (problem,) = refused(text, strategies={"single": _takes_anything, "fusion": _takes_anything})
    assert (problem.path, problem.message) == ("profiles.default.strategy", 'names no strategy; did you mean "fusion"?')
    assert load(strategies={"single": _takes_anything, "fusion": _takes_anything}).profiles["default"].strategy == "fusion"


def _takes_anything(parameters: Mapping[str, object]) -> list[tuple[str, str]]:
    return []


def test_parameters_are_held_against_the_strategy_they_are_for(refused: Refused, load: Load, tmp_path: Path) -> None:
    """Each that it does not take is told at its own path and place, other mistakes beside it; without strategies any will do."""

    def check(parameters: Mapping[str, object]) -> list[tuple[str, str]]:
        assert parameters == {"layers": "two", "voices": ["a", {"b": 1}], "odd name": None}
        return [
            ("layers", "should be a number"),
            ("voices[1].b", "is unknown"),
            ("voices[1].b", "is bad"),
            ("odd name", "is unknown"),
            ("passes", "is required"),
        ]

    text = (
        "profiles:\n  p:\n    strategy: moa\n    refiner: {model: smollm2}\n    members: [{model: smollm2, weight: 0}]\n"
        "    parameters:\n      layers: two\n      voices: [a, {b: 1}]\n      odd name: null\n"
        "  q: {strategy: single, members: [{model: smollm2}], parameters: {x: 1}}"
    )
    problems = refused(text, strategies={"moa": check, "single": _takes_anything, "fusion": _takes_anything})
    file = tmp_path / "ensemble.yaml"
    assert [(each.path, each.message, each.source) for each in problems] == [
        ("profiles.p.members[0].weight", "must be above 0", f"{file}, line 5, column 32"),
        ("profiles.p.parameters.layers", "should be a number", f"{file}, line 7, column 7"),
        ("profiles.p.parameters.voices[1].b", "is unknown; is bad", f"{file}, line 8, column 20"),
        ('profiles.p.parameters["odd name"]', "is unknown", f"{file}, line 9, column 7"),
        ("profiles.p.parameters.passes", "is required", f"{file}, line 6, column 5"),
    ]
    assert load(text.replace("weight: 0", "weight: 1")).profiles["p"].parameters["layers"] == "two"


def test_a_strategy_may_want_parameters_that_a_profile_does_not_give(refused: Refused) -> None:
    """It is asked even where there are none."""
    (problem,) = refused(
        "profiles: {local: null, default: null}", strategies={"single": lambda parameters: [("threshold", "is required")] if not parameters else []}
    )
    assert (problem.path, problem.message) == ("profiles.single.parameters.threshold", "is required")


def test_parameters_are_not_held_against_a_strategy_that_is_not_known(refused: Refused) -> None:
    """The name alone is told, not what would follow from it."""
    text = "profiles: {local: null, default: null, single: {strategy: singel, parameters: {x: 1}}}"
    assert [problem.path for problem in refused(text, strategies={"single": lambda _: [("x", "is unknown")]})] == ["profiles.single.strategy"]


def test_the_process_s_own_environment_and_folder_are_the_default(tmp_path: Path) -> None:
    """A service that is started anywhere reads its own variables and its own folder."""
    (tmp_path / "ensemble.yaml").write_text("gateway: {grace: 7s}")
    program = "from services.chassis.configuration import load_configuration as load; c = load(); print(c.gateway.grace_seconds, c.limiter.grace_seconds)"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ENSEMBLE")},
        "ENSEMBLE__LIMITER__GRACE": "8s",
        "PYTHONPATH": str(Path.cwd()),
    }
    ended = run([sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["7.0", "8.0"]


def test_a_configuration_cannot_be_changed(load: Load) -> None:
    """Sections, mappings and lists are all read-only."""
    configuration: Configuration = load()
    with pytest.raises(ValueError, match="frozen"):
        configuration.gateway.listen = "x"
    with pytest.raises(TypeError):
        configuration.models["other"] = configuration.models["smollm2"]  # type: ignore[index]  # This is what must fail.
    assert isinstance(configuration.profiles["default"].members, tuple)
