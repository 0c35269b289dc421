"""Settings from variables."""

import string

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.configuration import plain_parameters
from services.chassis.configuration.environment import environment_layers
from services.chassis.configuration.merge import merged_tree
from tests.chassis.configuration.conftest import Load, Refused

MODELS = "models:\n  GPT-4.1: {provider: local, name: x}\n"


def tree_of(environ: dict[str, str], below: dict[str, object] | None = None) -> dict[str, object]:
    """Return what the variables say over a tree."""
    layers, problems = environment_layers(environ, below or {})
    assert problems == []
    return merged_tree(layers)


def test_values_other_than_text_are_read_as_yaml(load: Load) -> None:
    """Numbers, truth values, durations, lists and mappings may be given."""
    configuration = load(
        environ={
            "ENSEMBLE__MODELS__SMOLLM2__MAX_OUTPUT_TOKENS": "64",
            "ENSEMBLE__MODELS__SMOLLM2__PRICE": "{input: 0.5, output: 1}",
            "ENSEMBLE__GATEWAY__REFLECTION": "false",
            "ENSEMBLE__GATEWAY__GRACE": "250ms",
            "ENSEMBLE__PROFILES__DEFAULT__MEMBERS": "[{model: smollm2}, {model: smollm2, temperature: 1}]",
        }
    )
    model = configuration.models["smollm2"]
    assert model.max_output_tokens == 64
    assert model.price is not None
    assert (model.price.input, model.price.output) == (0.5, 1.0)
    assert configuration.gateway.reflection is False
    assert configuration.gateway.grace_seconds == 0.25
    assert [member.temperature for member in configuration.profiles["default"].members] == [None, 1.0]


def test_text_is_taken_as_it_stands(load: Load) -> None:
    """What is text in the schema is not read as YAML, so that nothing in it needs quoting."""
    configuration = load(
        environ={"ENSEMBLE__GATEWAY__LISTEN": "[::1]:50051", "ENSEMBLE__PROFILES__SINGLE__DESCRIPTION": "a: [b # c", "ENSEMBLE__MODELS__SMOLLM2__NAME": "8"}
    )
    assert configuration.gateway.listen == "[::1]:50051"
    assert configuration.profiles["single"].description == "a: [b # c"
    assert configuration.models["smollm2"].name == "8"


def test_parameters_of_a_strategy_are_read_as_yaml(load: Load) -> None:
    """Whatever they are called, one by one or as a whole; the name of one that is new is taken in lower case."""
    environ = {"ENSEMBLE__PROFILES__SINGLE__PARAMETERS": "{layers: 2, Odd-Name: [a, 1]}", "ENSEMBLE__PROFILES__SINGLE__PARAMETERS__DEEP__ER": "null"}
    assert plain_parameters(load(environ=environ).profiles["single"].parameters) == {"layers": 2, "Odd-Name": ["a", 1], "deep": {"er": None}}


def test_an_empty_variable_takes_an_optional_setting_back(load: Load) -> None:
    """An empty variable is null: it switches off what the file set."""
    assert load("telemetry: {endpoint: http://x:4317}", {"ENSEMBLE__TELEMETRY__ENDPOINT": ""}).telemetry.endpoint is None


def test_names_are_found_whatever_their_case_and_marks(load: Load) -> None:
    """A variable's name cannot hold "-" and "."; both count as "_", and a known name keeps its spelling."""
    configuration = load(MODELS, {"ENSEMBLE__MODELS__GPT_4_1__TIMEOUT": "7s", "ENSEMBLE__Models__smollm2__Timeout": "8s"})
    assert configuration.models["GPT-4.1"].timeout_seconds == 7.0
    assert configuration.models["smollm2"].timeout_seconds == 8.0
    assert set(configuration.models) == {"GPT-4.1", "smollm2"}


def test_a_new_name_is_taken_in_lower_case(load: Load) -> None:
    """A model that no file knows may be made of variables alone."""
    configuration = load(environ={"ENSEMBLE__MODELS__TINY__PROVIDER": "local", "ENSEMBLE__MODELS__TINY__NAME": "x"})
    assert configuration.models["tiny"].name == "x"


def test_a_path_that_is_set_twice_is_refused(refused: Refused) -> None:
    """Two spellings of one setting contradict each other; which would win is not left to chance."""
    (problem,) = refused(environ={"ENSEMBLE__GATEWAY__GRACE": "1s", "ENSEMBLE__gateway__grace": "2s"})
    assert (problem.path, problem.message, problem.source) == ("gateway.grace", "is set by ENSEMBLE__GATEWAY__GRACE too", "ENSEMBLE__gateway__grace")


def test_two_names_that_a_variable_cannot_tell_apart_are_refused(refused: Refused) -> None:
    """A variable that could mean either of two models means neither."""
    (problem,) = refused(f"{MODELS}  gpt_4_1: {{provider: local, name: y}}\n", {"ENSEMBLE__MODELS__GPT_4_1__TIMEOUT": "7s"})
    assert problem.source == "ENSEMBLE__MODELS__GPT_4_1__TIMEOUT"
    assert problem.message == "could mean GPT-4.1 or gpt_4_1; set it in the file"


def test_a_longer_path_stands_over_a_shorter_one() -> None:
    """A mapping given as a whole is refined by a variable for one of its keys, whatever their order."""
    for environ in ({"ENSEMBLE__A": "{b: 1, c: 2}", "ENSEMBLE__A__B": "3"}, {"ENSEMBLE__A__B": "3", "ENSEMBLE__a": "{b: 1, c: 2}"}):
        assert tree_of(environ) == {"a": {"b": 3, "c": 2}}


def test_a_name_given_by_one_variable_is_found_by_another() -> None:
    """A name keeps the spelling it was given in the value of a variable with a shorter path."""
    assert tree_of({"ENSEMBLE__MODELS": "{Tiny-1: {b: 1}}", "ENSEMBLE__MODELS__TINY_1__B": "2"}) == {"models": {"Tiny-1": {"b": 2}}}


def test_unknown_settings_are_refused_with_the_nearest(refused: Refused) -> None:
    """A slip in a variable's name is told like one in the file."""
    (problem,) = refused(environ={"ENSEMBLE__MODELS__SMOLLM2__TIMOUT": "7s"})
    assert problem.path == "models.smollm2.timout"
    assert problem.message == 'is not known; did you mean "timeout"?'
    assert problem.source == "ENSEMBLE__MODELS__SMOLLM2__TIMOUT"


def test_a_key_in_a_variables_name_is_not_repeated(refused: Refused) -> None:
    """Neither as it stands nor as the setting that it would be; what else the name says is told."""
    key = "ensemble_" + "A1b2" * 11
    (problem,) = refused(environ={f"ENSEMBLE__LIMITER__{key.upper()}": "1"})
    assert problem.source == "ENSEMBLE__LIMITER__ensemble_…"
    assert problem.path == "limiter.ensemble_…"


def test_a_value_that_is_not_yaml_is_refused_unrepeated(refused: Refused) -> None:
    """A value that cannot be read is told by path and variable."""
    (problem,) = refused(environ={"ENSEMBLE__GATEWAY__REFLECTION": "[tru"})
    assert (problem.path, problem.source) == ("gateway.reflection", "ENSEMBLE__GATEWAY__REFLECTION")
    assert "tru" not in problem.message


def test_a_path_through_a_value_is_refused(refused: Refused) -> None:
    """What has no keys has none in variables either; entries of a list are among it."""
    (problem,) = refused(environ={"ENSEMBLE__GATEWAY__LISTEN__PORT": "1"})
    assert (problem.path, problem.message) == ("gateway.listen", "must be text")
    (problem,) = refused(environ={"ENSEMBLE__PROFILES__DEFAULT__MEMBERS__0__WEIGHT": "2"})
    assert (problem.path, problem.message) == ("profiles.default.members", "must be a list")


def test_other_variables_are_left_alone(load: Load) -> None:
    """Only names with the prefix and two underscores are settings."""
    assert (
        load(
            environ={"ENSEMBLE_CONFIGURATION": "x", "ENSEMBLE": "x", "NOT_ENSEMBLE__GATEWAY__GRACE": "x", "ensemble__gateway__grace": "x"}
        ).gateway.grace_seconds
        == 10.0
    )


@given(st.dictionaries(st.text(string.ascii_letters + "_", max_size=12).map("ENSEMBLE__".__add__), st.text(max_size=12), max_size=5))
def test_any_variables_are_read_or_refused(environ: dict[str, str]) -> None:
    """Whatever the names and values, each variable gives a layer or a problem, and none an exception."""
    layers, problems = environment_layers(environ, {})
    assert sorted([*(layer.name for layer in layers), *(problem.source for problem in problems)]) == sorted(environ)
