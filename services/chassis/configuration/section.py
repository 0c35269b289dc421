"""What the sections of the configuration have in common, and the kinds of value that several of them hold.

Lists and mappings are made unchangeable as they are read, so that a configuration is one value that services can share.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, WrapSerializer
from pydantic_core import PydanticCustomError

from services.chassis.api_keys import without_keys

Item = TypeVar("Item")

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,59}")
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9_.*-]+):(?P<port>[0-9]{1,5})|unix:[!-~]+")
_TARGET = re.compile(r"[!-~]+")
_NOT_VISIBLE = re.compile(r"[^!-~]")


class Section(BaseModel):
    """A part of the configuration: unchangeable, strict about types and keys, and silent about values in its errors."""

    # Deferred, the validators of all sections are built once, with the first configuration, and not section by section on import.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, defer_build=True)


def _unchangeable_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_dict(value: Mapping[str, object], write: SerializerFunctionWrapHandler) -> Any:
    return write(dict(value))


def _named(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise PydanticCustomError("name", 'must be a name: 1 to 60 of a-z, A-Z, 0-9, "-", "_" and ".", the first one a letter or figure')
    return name


def no_key(text: str) -> str:
    """Return a text that names something. Raises `PydanticCustomError` where it holds an API key of ours, and shows nothing of it."""
    if without_keys(text) != text:
        raise PydanticCustomError("key", "must not be a key: a key itself never stands in the configuration")
    return text


def _address(address: str) -> str:
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"] or 0) > 65535:
        raise PydanticCustomError("address", 'must be HOST:PORT, for example "127.0.0.1:50051" or "[::1]:50051", or unix:PATH')
    return address


def _target(target: str) -> str:
    if _TARGET.fullmatch(target) is None:
        raise PydanticCustomError("target", 'must be a gRPC target, for example "127.0.0.1:50052" or "dns:///limiter:50053"')
    return target


def _url(*schemes: str, bare: bool) -> Callable[[str], str]:
    words = " or ".join(f"{scheme}://" for scheme in schemes)

    def rule(url: str) -> str:
        if bare and "//" not in url:
            return _address(url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), 0
        if _NOT_VISIBLE.search(url) or parts.scheme not in schemes or not parts.hostname or port == 0:
            raise PydanticCustomError("url", "must be a URL that begins with {words}", {"words": words})
        if "@" in parts.netloc or parts.query or parts.fragment:
            # Any of the three may be a credential; the message must not show which text it was.
            raise PydanticCustomError("url_extras", "must be a URL without user name, password, query and fragment")
        return url

    return rule


def redis_url(url: str) -> str:
    """Return a Redis server's URL. Raises `PydanticCustomError` where it is none, or holds a secret."""
    return _url("redis", "rediss", bare=False)(url)


Name = Annotated[str, AfterValidator(_named), AfterValidator(no_key)]
"""Of a provider, model, profile or tenant."""
Address = Annotated[str, AfterValidator(_address)]
"""Where a server listens."""
Target = Annotated[str, Field(max_length=1024), AfterValidator(_target)]
"""What a channel is opened to."""
HttpUrl = Annotated[str, Field(max_length=2048), AfterValidator(_url("http", "https", bare=False))]
Endpoint = Annotated[str, Field(max_length=2048), AfterValidator(_url("http", "https", bare=True))]
"""A URL, or HOST:PORT."""
UNCHANGEABLE = AfterValidator(MappingProxyType)
"""Makes a mapping read-only."""
AS_MAPPING = WrapSerializer(_as_dict)
"""Lets pydantic write a read-only mapping like any other."""
Named = Annotated[Mapping[Name, Item], UNCHANGEABLE, AS_MAPPING]
"""Entries by their names."""
Listed = Annotated[tuple[Item, ...], BeforeValidator(_unchangeable_list)]
"""Entries in their order."""


def nothing() -> Mapping[str, Any]:
    """Return an unchangeable empty mapping: the default of one that was not given."""
    return MappingProxyType({})
