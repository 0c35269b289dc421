"""A provider and an endpoint that asks it."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from services.models.openai_endpoint import OpenAIEndpoint
from tests.support.endpoint_calls import KEY
from tests.support.fake_provider import FakeProvider


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Run a fake provider."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
async def endpoint(provider: FakeProvider) -> AsyncIterator[OpenAIEndpoint]:
    """Return an endpoint at the provider."""
    made = OpenAIEndpoint(base_url=provider.base_url, api_key=SecretStr(KEY), headers={"X-Title": "Ensemble"}, max_connections=4)
    yield made
    await made.aclose()
