"""The settings that come with the package: the embedded local model, and hosted models for those who have a key in their environment.

    defaults.yaml              always
    defaults.openrouter.yaml   over it where OPENROUTER_API_KEY is set
    defaults.openai.yaml       over it where OPENAI_API_KEY is set, and the other is not

The profile "local" always is the embedded ensemble; "default" is the same unless hosted models take its place.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import cast

from services.chassis.configuration.document import read_document
from services.chassis.configuration.merge import Layer

_OVERLAYS = (("OPENROUTER_API_KEY", "defaults.openrouter.yaml"), ("OPENAI_API_KEY", "defaults.openai.yaml"))


def packaged_layers(environ: Mapping[str, str]) -> list[Layer]:
    """Return the packaged settings that apply in an environment."""
    embedded = _layer("defaults.yaml")
    overlay = next((file for variable, file in _OVERLAYS if environ.get(variable, "").strip()), None)
    if overlay is not None:
        return [embedded, _layer(overlay)]
    local = cast("Mapping[str, Mapping[str, object]]", embedded.tree)["profiles"]["local"]
    return [embedded, Layer(name=embedded.name, tree={"profiles": {"default": local}})]


def _layer(file: str) -> Layer:
    document = read_document(files(__package__).joinpath(file).read_bytes(), file)
    # What is packaged is well-formed; the tests see to that.
    return Layer(name=f"packaged {file}", tree=cast("Mapping[str, object]", document.tree), places=document.places)
