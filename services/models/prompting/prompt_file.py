"""Prompts are files with a version; the version goes into the provenance.

A file whose name begins with another's, as "fuse_schema" does with "fuse", is a part that is joined to it where it is needed; the two have the same version and
change it together.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's text and where it comes from."""

    version: str
    """Name and version, for example "fuse/1"."""
    template: str
    """Text with {placeholders}."""

    def filled(self, **values: str | int) -> str:
        """Return the text with each placeholder replaced, in one pass, so that no value is taken for a placeholder. Raises `KeyError` where one is missing."""
        return _PLACEHOLDER.sub(lambda match: str(values[match.group(1)]), self.template)


@cache
def load_prompt(name: str, version: int) -> Prompt:
    """Read a packaged prompt."""
    text = resources.files("services.models.prompting").joinpath("prompt_files", f"{name}.{version}.txt").read_text(encoding="utf-8")
    return Prompt(f"{name}/{version}", text.strip())
