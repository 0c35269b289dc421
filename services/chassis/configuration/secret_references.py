"""Secrets: the configuration says where one is to be found, never what it is.

The file holds {env: NAME} or {file: PATH}. The secret itself is read as the configuration is loaded and lives in a `SecretStr` from then on.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr, model_validator
from pydantic_core import PydanticCustomError

from services.chassis.configuration.section import Section

MOST_SECRET_BYTES = 16 << 10

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_FILE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,4096}")
_VISIBLE = re.compile(r"[!-~]+")

# A key that stands where its reference should must not be shown, not even as the name of the variable or file it was taken for.
_SHAPE = "must be {env: NAME}, a variable's name in capitals, or {file: PATH}; a secret itself never stands in the configuration"


class SecretUnavailable(Exception):
    """A secret cannot be had; the text says why and holds nothing secret."""


class SecretReference(Section):
    """Where a secret is: exactly one of the two is set."""

    env: str | None = None
    """Name of an environment variable."""
    file: str | None = None
    """Path of a file that holds nothing else; relative to the working folder."""

    @model_validator(mode="before")
    @classmethod
    def _well_formed(cls, value: object) -> object:
        if not isinstance(value, Mapping) or not set(value) <= {"env", "file"}:
            raise PydanticCustomError("secret", "{shape}", {"shape": _SHAPE})
        given = {source: place for source, place in value.items() if place is not None}
        if len(given) != 1 or not all(isinstance(place, str) for place in given.values()):
            raise PydanticCustomError("secret", "{shape}", {"shape": _SHAPE})
        ((source, place),) = given.items()
        if (_VARIABLE if source == "env" else _FILE).fullmatch(place) is None:
            raise PydanticCustomError("secret", "{shape}", {"shape": _SHAPE})
        return value

    @property
    def source(self) -> str:
        """Where the secret is, in words: "env OPENAI_API_KEY" or "file /run/secrets/key"."""
        return f"file {self.file}" if self.env is None else f"env {self.env}"

    def resolve(self, environ: Mapping[str, str], folder: Path) -> SecretStr:
        """Fetch the secret. Raises `SecretUnavailable`."""
        text = _read_file(folder / str(self.file)) if self.env is None else environ.get(self.env, "").strip()
        if not text:
            raise SecretUnavailable("the secret's file is empty" if self.env is None else f"the environment variable {self.env} is not set or empty")
        if _VISIBLE.fullmatch(text) is None:
            # It becomes part of an HTTP header, where anything else is an error that shows the text, or worse, a second header.
            raise SecretUnavailable("the secret must be one line of visible ASCII characters")
        return SecretStr(text)


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_SECRET_BYTES + 1)
    except OSError as error:
        raise SecretUnavailable(f"the secret's file cannot be read ({type(error).__name__})") from None
    if len(content) > MOST_SECRET_BYTES:
        raise SecretUnavailable(f"the secret's file is larger than {MOST_SECRET_BYTES} bytes")
    return content.decode("utf-8", "replace").strip()
