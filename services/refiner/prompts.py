"""Prompts are files with a version; the version goes into the provenance."""

from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's text and where it comes from."""

    version: str
    """Name and version, for example "fuse/1"."""
    template: str
    """Text with {placeholders}."""


@cache
def load_prompt(name: str, version: int) -> Prompt:
    """Read a packaged prompt."""
    text = resources.files("services.refiner").joinpath("prompt_files", f"{name}.{version}.txt").read_text(encoding="utf-8")
    return Prompt(f"{name}/{version}", text.strip())
