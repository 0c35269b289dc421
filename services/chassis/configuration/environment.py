"""Settings from environment variables: ENSEMBLE__SECTION__KEY.

Two underscores part the steps of the path. Steps are compared without regard to case, and "-" and "." in a name count as "_", which is all that a variable's
name can hold: ENSEMBLE__MODELS__GPT_5__TIMEOUT=30s sets the timeout of the model "gpt-5". A name that is new is taken in lower case. Entries of lists have no
variables of their own; the list is given as a whole.

A setting that is text takes the variable as it stands; anything else is read as YAML. An empty variable is null, which takes an optional setting back.
"""

from collections.abc import Iterator, Mapping

from services.chassis.api_keys import without_secrets
from services.chassis.configuration.document import read_document
from services.chassis.configuration.merge import Layer, merge
from services.chassis.configuration.problems import Problem, written_path
from services.chassis.configuration.schema_keys import kind_at, known_keys

PREFIX = "ENSEMBLE__"


def environment_layers(environ: Mapping[str, str], below: Mapping[str, object]) -> tuple[list[Layer], list[Problem]]:
    """Return a layer for each variable, shorter paths first, and what is wrong with them; `below` is the tree they are put over."""
    layers: list[Layer] = []
    problems: list[Problem] = []
    taken: dict[tuple[str, ...], str] = {}
    for variable, steps in sorted(_variables(environ), key=lambda each: (len(each[1]), each[0])):
        path, ambiguous = _path(steps, below)
        shown = PREFIX + without_secrets(variable.removeprefix(PREFIX))
        if ambiguous:
            problems.append(Problem(path=written_path(path), message=ambiguous, source=shown))
        elif "" in path:
            problems.append(Problem(path="", message="must be ENSEMBLE__SECTION__KEY", source=shown))
        elif path in taken:
            problems.append(Problem(path=written_path(path), message=f"is set by {taken[path]} too", source=shown))
        else:
            taken[path] = shown
            value, refusal = _value(environ[variable], path)
            if refusal:
                problems.append(Problem(path=written_path(path), message=refusal, source=shown))
            else:
                layers.append(Layer(name=shown, tree=_tree(path, value)))
                below = merge(below, layers[-1].tree)
    return layers, problems


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for variable in environ:
        if variable.startswith(PREFIX):
            yield variable, tuple(variable.removeprefix(PREFIX).split("__"))


def _path(steps: tuple[str, ...], below: Mapping[str, object]) -> tuple[tuple[str, ...], str]:
    """Return the steps as the keys they stand for: those of the schema, those of the tree, or else the steps in lower case.

    Where a step stands for several keys, return the path above it, and what is wrong.
    """
    path: tuple[str, ...] = ()
    tree: object = below
    for step in steps:
        names = tree if isinstance(tree, Mapping) else {}
        keys = sorted({key for key in (*known_keys(path), *names) if _folded(key) == _folded(step)})
        if len(keys) > 1:
            return path, f"could mean {' or '.join(keys)}; set it in the file"
        path = (*path, keys[0] if keys else step.lower())
        tree = names.get(path[-1])
    return path, ""


def _folded(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _value(text: str, path: tuple[str, ...]) -> tuple[object, str]:
    """Return the value that a variable gives a setting, and what is wrong with it."""
    if kind_at(path) is str and text:
        return text, ""
    document = read_document(text.encode("utf-8", "replace"), "")
    return document.tree, document.problems[0].message if document.problems else ""


def _tree(path: tuple[str, ...], value: object) -> dict[str, object]:
    tree = value
    for step in reversed(path):
        tree = {step: tree}
    return dict(tree) if isinstance(tree, Mapping) else {}
