"""The catalogue: every model that may be called, by its name in the configuration."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.chassis.configuration import Configuration, ModelSection
from services.chassis.errors import NotFound
from services.models.chat import StructuredOutput, Timeouts
from services.models.prices import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model and how it is called."""

    name: str
    """Its name in the configuration, by which requests ask for it."""
    provider: str
    """Name of the provider that serves it."""
    provider_model: str
    """Its name at the provider."""
    timeouts: Timeouts
    """The longest times for one call, unless the request allows less."""
    max_output_tokens: int
    """Cap on the answer where the request names none."""
    price: Price | None = None
    """None where it is not known."""
    stream: bool = True
    """Whether the endpoint can send the answer piece by piece."""
    concurrency: int = 8
    """Most calls at once."""
    structured_output: StructuredOutput = StructuredOutput.JSON_SCHEMA
    """How the endpoint is told of a JSON Schema that the answer shall satisfy."""
    context_tokens: int | None = None
    """Longest prompt and answer together; None where it is not known."""


class Catalogue:
    """The models in the order of the configuration."""

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        self._entries = {entry.name: entry for entry in entries}

    @classmethod
    def from_configuration(cls, configuration: Configuration) -> "Catalogue":
        """Make the catalogue of the section `models`."""
        return cls(_entry(name, section) for name, section in configuration.models.items())

    def get(self, name: str) -> ModelEntry:
        """Return the model of that name. Raises `NotFound`, which lists those there are."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound("model", name, self.names())
        return entry

    def names(self) -> tuple[str, ...]:
        """Return the names of all models."""
        return tuple(self._entries)


def _entry(name: str, section: ModelSection) -> ModelEntry:
    price = section.price
    return ModelEntry(
        name=name,
        provider=section.provider,
        provider_model=section.name,
        timeouts=Timeouts(total=section.timeout_seconds, first_token=section.first_token_timeout_seconds, idle=section.idle_timeout_seconds),
        max_output_tokens=section.max_output_tokens,
        price=None
        if price is None
        else Price(input_usd_per_million=price.input, output_usd_per_million=price.output, cached_input_usd_per_million=price.cached_input),
        stream=section.stream,
        concurrency=section.limits.concurrency,
        structured_output=StructuredOutput(section.structured_output),
        context_tokens=section.context_tokens,
    )
