"""From files and environment to the configuration.

    packaged defaults < ensemble.yaml < ENSEMBLE__* variables < overrides

The user's file is the one that is named (`--config`), else the one ENSEMBLE_CONFIG names, else ensemble.yaml in the working folder, where there is one.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from services.chassis.configuration.document import MOST_BYTES, read_document
from services.chassis.configuration.environment import environment_layers
from services.chassis.configuration.merge import Layer, merged_tree, source_of
from services.chassis.configuration.packaged import packaged_layers
from services.chassis.configuration.problems import ConfigurationError, Problem, told, written_path
from services.chassis.configuration.schema import Configuration
from services.chassis.configuration.surroundings import ParametersCheck, surroundings_of

FILE = "ensemble.yaml"
FILE_VARIABLE = "ENSEMBLE_CONFIG"


def load_configuration(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    strategies: Mapping[str, ParametersCheck] | None = None,
) -> Configuration:
    """Load and check the configuration; environment and folder are the process's unless given.

    Strategies are known by their names, each with what finds out which parameters it does not take; where none are given, any will do.
    Raises `ConfigurationError` with everything that is wrong.
    """
    environ = os.environ if environ is None else environ
    folder = Path.cwd() if folder is None else folder
    layers = packaged_layers(environ)
    file = _file(path, environ, folder)
    problems: list[Problem] = []
    if file is not None:
        layer, problems = _file_layer(file)
        if layer is None:
            # Without it most of what follows would be said wrongly.
            raise ConfigurationError(problems)
        layers.append(layer)
    variables, wrong = environment_layers(environ, merged_tree(layers))
    layers += variables
    problems += wrong
    if overrides is not None:
        layers.append(Layer(name="overrides", tree=overrides))

    tree = merged_tree(layers)
    configuration = None
    try:
        configuration = Configuration.model_validate(tree, context=surroundings_of(tree, environ, folder, strategies))
    except ValidationError as refusal:
        problems += [Problem(path=written_path(at), message=message, source=source_of(at, layers)) for at, message in told(refusal)]
    # Raised out here, because the library's error holds the tree, and must not be met in the traceback of ours.
    if configuration is None or problems:
        raise ConfigurationError(problems)
    return configuration


def configuration_file(path: Path | None = None) -> Path | None:
    """Return the file that `load_configuration` would read beside the packaged ones; None where there is none."""
    return _file(path, os.environ, Path.cwd())


def _file(path: Path | None, environ: Mapping[str, str], folder: Path) -> Path | None:
    if path is not None:
        return folder / path
    if named := environ.get(FILE_VARIABLE):
        return folder / named
    found = folder / FILE
    return found if found.is_file() else None


def _file_layer(file: Path) -> tuple[Layer | None, list[Problem]]:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        return None, [Problem(path="", message=f"the file cannot be read ({type(error).__name__})", source=str(file))]
    document = read_document(content, str(file))
    tree = {} if document.tree is None else document.tree
    if document.broken:
        return None, list(document.problems)
    if not isinstance(tree, dict):
        return None, [Problem(path="", message="must be a mapping of sections", source=str(file))]
    return Layer(name=str(file), tree=tree, places=document.places), list(document.problems)
