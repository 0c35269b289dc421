"""What comes with the package."""

import pytest

from services.chassis.configuration import render
from tests.chassis.configuration.conftest import Load


def test_without_a_key_the_embedded_model_answers_as_three_personas(load: Load) -> None:
    """The default is a fusion of three personas of the local model at different temperatures, and costs nothing."""
    configuration = load()
    default = configuration.profiles["default"]
    assert (default.strategy, default.quorum) == ("fusion", 2)
    assert [member.id for member in default.members] == ["plain", "careful", "lively"]
    assert {member.model for member in default.members} == {"smollm2"}
    assert len({member.temperature for member in default.members}) == len({member.persona for member in default.members}) == 3
    assert default.refiner is not None
    assert default.refiner.model == "smollm2"
    model = configuration.models["smollm2"]
    assert (model.provider, model.name, model.limits.concurrency, model.max_output_tokens) == ("local", "smollm2-135m-instruct", 3, 256)
    assert model.price is not None
    assert (model.price.input, model.price.output) == (0.0, 0.0)
    assert (model.structured_output, model.context_tokens) == ("json_schema", 2048)
    assert (configuration.providers["local"].base_url, configuration.providers["local"].api_key) == ("http://127.0.0.1:50060/v1", None)
    assert configuration.profiles["single"].strategy == "single"


@pytest.mark.parametrize(
    ("environ", "provider"),
    [
        ({}, "local"),
        ({"OPENROUTER_API_KEY": " ", "OPENAI_API_KEY": ""}, "local"),
        ({"OPENROUTER_API_KEY": "k"}, "openrouter"),
        ({"OPENAI_API_KEY": "k"}, "openai"),
        ({"OPENROUTER_API_KEY": "k", "OPENAI_API_KEY": "k"}, "openrouter"),
    ],
)
def test_a_key_brings_hosted_models(load: Load, environ: dict[str, str], provider: str) -> None:
    """The default profile uses the provider whose key is at hand, OpenRouter first; the embedded ensemble stays as "local"."""
    configuration = load(environ=environ)
    default = configuration.profiles["default"]
    assert default.refiner is not None
    assert {configuration.models[name].provider for name in (*(member.model for member in default.members), default.refiner.model)} == {provider}
    assert {configuration.models[member.model].provider for member in configuration.profiles["single"].members} == {provider}
    assert [member.id for member in configuration.profiles["local"].members] == ["plain", "careful", "lively"]


@pytest.mark.parametrize("variable", ["OPENROUTER_API_KEY", "OPENAI_API_KEY"])
def test_hosted_ensembles_are_of_three_priced_models(load: Load, variable: str) -> None:
    """Each hosted default asks three models whose prices and context windows are known."""
    configuration = load(environ={variable: "k"})
    models = {member.model: configuration.models[member.model] for member in configuration.profiles["default"].members}
    assert len(models) == 3
    assert all(model.price is not None and model.price.output > model.price.input > 0 for model in models.values())
    assert all(model.context_tokens is not None and model.context_tokens > 100_000 for model in models.values())


def test_openrouter_s_models_are_of_different_families(load: Load) -> None:
    """The hosted ensemble asks models that err differently."""
    configuration = load(environ={"OPENROUTER_API_KEY": "k"})
    families = [configuration.models[member.model].name.partition("/")[0] for member in configuration.profiles["default"].members]
    assert len(set(families)) == 3


def test_a_user_s_profile_stands_over_the_packaged_one_key_by_key(load: Load) -> None:
    """Members are a list and replaced; the rest of the profile stays, and null takes a setting back."""
    default = load("profiles: {default: {members: [{model: smollm2}], quorum: null}}").profiles["default"]
    assert (default.strategy, len(default.members), default.quorum) == ("fusion", 1, None)
    assert default.description.startswith("Three personas")


def test_a_profile_of_ones_own_replaces_the_packaged_one(load: Load) -> None:
    """Where it says its strategy and its members, nothing of the packaged profile is left in it."""
    default = load("profiles: {default: {strategy: single, members: [{model: smollm2}]}}").profiles["default"]
    assert (default.strategy, len(default.members), default.quorum, default.refiner, default.description) == ("single", 1, None, None, "")


def test_packaged_entries_can_be_removed(load: Load) -> None:
    """A configuration of one's own may do without the embedded model."""
    text = """
      providers: {local: null, mine: {kind: openai, base_url: "http://x"}}
      models: {smollm2: null, m: {provider: mine, name: x}}
      profiles: {local: null, single: null, default: {members: [{model: m}], refiner: {model: m}, quorum: 1}}
    """
    configuration = load(text)
    assert (set(configuration.providers), set(configuration.models), set(configuration.profiles)) == ({"mine"}, {"m"}, {"default"})


def test_nothing_of_the_environment_is_shown(load: Load) -> None:
    """The key that brought the hosted models is in no rendering."""
    assert "sk-planted" not in render(load(environ={"OPENROUTER_API_KEY": "sk-planted"}))
