"""A fake provider and the four services over it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fake_provider import FakeProvider
from tests.support.stack import Stack, stack


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Run a fake provider."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
async def services(provider: FakeProvider) -> AsyncIterator[Stack]:
    """Run the four services over the provider."""
    async with stack(provider) as running:
        yield running
