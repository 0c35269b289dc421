"""The catalogue."""

from pathlib import Path

import pytest

from services.chassis.configuration import load_configuration
from services.chassis.errors import NotFound
from services.models.catalogue import Catalogue, ModelEntry
from services.models.chat import StructuredOutput, Timeouts
from services.models.prices import Price

TIMEOUTS = Timeouts(total=7.0, first_token=3.0, idle=2.0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """Return the packaged model and two of our own."""
    models = {
        "dear": {
            "provider": "local",
            "name": "some/dear-model",
            "timeout": "7s",
            "first_token_timeout": "3s",
            "idle_timeout": "2s",
            "max_output_tokens": 99,
            "stream": False,
            "price": {"input": 1.5, "output": 2.0, "cached_input": 0.5},
            "limits": {"concurrency": 5},
            "structured_output": "prompt",
            "context_tokens": 4096,
        },
        "plain": {"provider": "local", "name": "x"},
    }
    return Catalogue.from_configuration(load_configuration(environ={}, folder=tmp_path, overrides={"models": models}))


def test_an_entry_holds_what_the_configuration_says(catalogue: Catalogue) -> None:
    """Every setting of a model that a caller needs is carried over, times in seconds."""
    assert catalogue.get("dear") == ModelEntry(
        name="dear",
        provider="local",
        provider_model="some/dear-model",
        timeouts=TIMEOUTS,
        max_output_tokens=99,
        price=Price(input_usd_per_million=1.5, output_usd_per_million=2.0, cached_input_usd_per_million=0.5),
        stream=False,
        concurrency=5,
        structured_output=StructuredOutput.PROMPT,
        context_tokens=4096,
    )


def test_a_model_without_a_price_has_none(catalogue: Catalogue) -> None:
    """An unknown price stays unknown, and is not taken for zero; a price of zero is one."""
    assert catalogue.get("plain").price is None
    assert catalogue.get("smollm2").price == Price(input_usd_per_million=0.0, output_usd_per_million=0.0)


def test_names_are_those_of_the_configuration(catalogue: Catalogue) -> None:
    """All models are listed, in the order of the configuration."""
    assert catalogue.names() == ("smollm2", "dear", "plain")


def test_an_unknown_model_is_refused_with_those_there_are(catalogue: Catalogue) -> None:
    """The error says what was looked for and lists what is there."""
    with pytest.raises(NotFound, match="no model of that name; known are dear, plain, smollm2") as caught:
        catalogue.get("other")
    assert (caught.value.kind, caught.value.name) == ("model", "other")


def test_an_entry_needs_no_configuration() -> None:
    """A test may make a catalogue of plain entries; of two with one name the last holds."""
    entries = [ModelEntry(name="m", provider="p", provider_model=name, timeouts=TIMEOUTS, max_output_tokens=1) for name in ("a", "b")]
    assert Catalogue(entries).get("m").provider_model == "b"
    assert (entries[0].price, entries[0].stream, entries[0].concurrency) == (None, True, 8)
    assert (entries[0].structured_output, entries[0].context_tokens) == (StructuredOutput.JSON_SCHEMA, None)


@pytest.mark.parametrize("word", list(StructuredOutput))
def test_every_way_to_tell_of_a_schema_can_be_configured(tmp_path: Path, word: StructuredOutput) -> None:
    """The words of the configuration are those of the adapter; who says nothing has the schema sent."""
    models = {"m": {"provider": "local", "name": "x", "structured_output": word.value}, "plain": {"provider": "local", "name": "x"}}
    catalogue = Catalogue.from_configuration(load_configuration(environ={}, folder=tmp_path, overrides={"models": models}))
    assert (catalogue.get("m").structured_output, catalogue.get("plain").structured_output) == (word, StructuredOutput.JSON_SCHEMA)
