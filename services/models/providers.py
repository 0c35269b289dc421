"""Provider kinds by name; adding one is a module of its own and a line here."""

from collections.abc import Callable, Mapping

from services.chassis.configuration import Configuration
from services.models.chat import ChatModel


def _openai(configuration: Configuration, name: str) -> ChatModel:
    # The SDK takes 0.6 s and 30 MB to import, which the gateway and the limiter need not spend.
    from services.models.openai_endpoint import OpenAIEndpoint  # noqa: PLC0415

    provider = configuration.providers[name]
    connections = sum(model.limits.concurrency for model in configuration.models.values() if model.provider == name)
    return OpenAIEndpoint(base_url=provider.base_url, api_key=provider.api_key, headers=provider.headers, max_connections=max(1, connections))


KINDS: Mapping[str, Callable[[Configuration, str], ChatModel]] = {"openai": _openai}


def open_providers(configuration: Configuration) -> dict[str, ChatModel]:
    """Return every configured provider by its name; none connects before it is called."""
    return {name: KINDS[provider.kind](configuration, name) for name, provider in configuration.providers.items()}
