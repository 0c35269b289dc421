"""The registry of provider kinds."""

from services.models.providers import KINDS, open_providers
from tests.support.fake_provider import FakeProvider
from tests.support.stack import configured


async def test_every_configured_provider_is_opened() -> None:
    """Each provider of the configuration gets an adapter of its kind; none is asked yet."""
    async with FakeProvider() as provider:
        opened = open_providers(configured(provider))
        assert list(opened) == ["fake"]
        assert "127.0.0.1" in repr(opened["fake"])
        for one in opened.values():
            await one.aclose()
        assert provider.requests == []
    assert set(KINDS) == {"openai"}
