"""The configuration as text."""

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis.configuration import configuration_hash, render
from tests.chassis.configuration.conftest import Load

WORDS = st.sampled_from(
    ["8", "1e3", "null", "~", "true", "no", "a: b", "# c", "-", "", "0s", "'", '"', "é\n\tx", "2026-01-01", "\\", "!x", "*y", "&z", "x" * 200]
)


def test_the_rendering_loads_to_the_same_configuration(load: Load) -> None:
    """What check-config shows may be saved and used."""
    environ = {"OPENROUTER_API_KEY": "sk-x"}
    configuration = load(
        "gateway: {grace: 1.5s}\nmodels: {gpt-mini: {price: null}}\nprofiles: {default: {quorum: null, max_cost: 0.1, "
        "hedge: {delay: 1500ms, percentile: 95}, retry: {failed: 3}, parameters: {layers: 2, deep: [{er: null, text: 'no'}]}}}",
        environ,
    )
    again = load(render(configuration), environ)
    assert again == configuration
    assert render(again) == render(configuration)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(WORDS, st.lists(WORDS.filter(bool), max_size=4))
def test_any_text_survives_the_rendering(load: Load, persona: str, stop: list[str]) -> None:
    """Text that looks like a number, a word of YAML or its syntax is quoted, so that it stays text."""
    overrides = {"profiles": {"single": {"members": [{"model": "smollm2", "persona": persona}], "generation": {"stop": stop}}}}
    configuration = load(overrides=overrides)
    assert load(render(configuration)) == configuration


def test_secrets_are_masked_and_their_sources_named(load: Load) -> None:
    """The head says of each secret where it comes from and whether it is there; the body holds the reference alone."""
    text = "providers: {p: {kind: openai, base_url: 'http://x', api_key: {file: missing}}}"
    rendered = render(load(text, {"OPENROUTER_API_KEY": "sk-x"}))
    assert rendered.startswith(
        "# Secrets:\n#   providers.openrouter.api_key: ********** (env OPENROUTER_API_KEY)\n#   providers.p.api_key: not set (file missing)\ntelemetry:\n"
    )
    tree = yaml.safe_load(rendered)
    assert tree["providers"]["openrouter"]["api_key"] == {"env": "OPENROUTER_API_KEY"}
    assert tree["providers"]["p"]["api_key"] == {"file": "missing"}


def test_a_header_that_looks_like_a_secret_is_masked(load: Load) -> None:
    """None may be there; other headers are shown, and the hash tells two configurations apart by either."""
    text = "providers: {{p: {{kind: openai, base_url: 'http://x', headers: {{X-Title: mine, X-A: '{0}'}}}}}}"
    secrets = ("Bearer abc", "basic abc", "sk-0123456789abcdef", "0123456789abcdef0123")
    configurations = [load(text.format(secret)) for secret in secrets]
    for configuration, secret in zip(configurations, secrets, strict=True):
        assert yaml.safe_load(render(configuration))["providers"]["p"]["headers"] == {"X-Title": "mine", "X-A": "**********"}
        assert secret not in repr(configuration)
        assert configuration.providers["p"].headers["X-A"] == secret
    assert len({configuration_hash(configuration) for configuration in configurations}) == len(secrets)


def test_without_secrets_there_is_no_head(load: Load) -> None:
    """The embedded default has nothing to mask."""
    assert render(load()).startswith("telemetry:\n")


def test_durations_are_shown_as_they_are_written(load: Load) -> None:
    """The rendering has units, not seconds."""
    assert yaml.safe_load(render(load("gateway: {grace: 1500ms}")))["gateway"]["grace"] == "1500ms"


def test_the_hash_is_that_of_the_settings(load: Load) -> None:
    """Equal settings have the same short hash wherever they come from; any other setting has another."""
    default = configuration_hash(load())
    assert default == configuration_hash(load("gateway: {grace: 10s}")) == configuration_hash(load(environ={"ENSEMBLE__GATEWAY__GRACE": "10000ms"}))
    assert default != configuration_hash(load("gateway: {grace: 11s}"))
    assert len(default) == 12
    assert int(default, 16) >= 0
