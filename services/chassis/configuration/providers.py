"""The section `providers`: where models are served."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr
from pydantic_core import PydanticCustomError

from services.chassis.configuration.secret_references import SecretReference, SecretUnavailable
from services.chassis.configuration.section import AS_MAPPING, UNCHANGEABLE, HttpUrl, Section, nothing
from services.chassis.configuration.surroundings import Surroundings

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,128}")
_HEADER_VALUE = re.compile(r"[ -~]{0,4096}")
_SECRET_HEADER = re.compile(r"auth|key|token|secret|password|cookie|credential", re.IGNORECASE)


def _header_name(name: str) -> str:
    if _HEADER.fullmatch(name) is None:
        raise PydanticCustomError("header", "must be the name of an HTTP header")
    if _SECRET_HEADER.search(name):
        raise PydanticCustomError("secret_header", "must not be a header that carries a secret; api_key is sent as the bearer token")
    return name


def _header_value(value: str) -> str:
    if _HEADER_VALUE.fullmatch(value) is None:
        raise PydanticCustomError("header", "must be one line of at most 4096 printable ASCII characters")
    return value


_HeaderName = Annotated[str, AfterValidator(_header_name)]
_HeaderText = Annotated[str, AfterValidator(_header_value)]


class ProviderSection(Section):
    """One endpoint that serves models."""

    kind: Literal["openai"]
    """Its dialect: "openai" for anything that understands OpenAI's chat completions."""
    base_url: HttpUrl
    """Its URL up to and without "/chat/completions", for example "https://openrouter.ai/api/v1"."""
    api_key_reference: SecretReference | None = Field(default=None, alias="api_key")
    """Where its key is; None for an endpoint that wants none."""
    headers: Annotated[Mapping[_HeaderName, _HeaderText], UNCHANGEABLE, AS_MAPPING] = Field(default_factory=nothing, repr=False)
    """Sent with every request; shown by check-config, but for what looks like a secret, so none of them may carry one."""

    _api_key: SecretStr | None = PrivateAttr(default=None)
    _api_key_problem: str = PrivateAttr(default="")

    @property
    def api_key(self) -> SecretStr | None:
        """The key itself; None where none is wanted, or none could be had and no profile needs it."""
        return self._api_key

    @property
    def api_key_problem(self) -> str:
        """Why the key cannot be had; empty where it can, or none is wanted."""
        return self._api_key_problem

    def model_post_init(self, context: Any) -> None:
        """Fetch the key, as long as the surroundings are at hand."""
        if self.api_key_reference is None or not isinstance(context, Surroundings):
            return
        try:
            self._api_key = self.api_key_reference.resolve(context.environ, context.folder)
        except SecretUnavailable as error:
            self._api_key_problem = str(error)
