"""What the configuration is read in: the environment's variables, the folder, and the names that its parts refer to each other by.

References are checked where they stand, beside types and ranges, so that one reading finds everything. For that the names are taken from the merged tree
before any of it is known to be valid.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from services.chassis.configuration.nearest import hint

ParametersCheck = Callable[[Mapping[str, object]], Sequence[tuple[str, str]]]
"""What is wrong with the parameters of a strategy: paths below them, such as "judges[1].model", and words that repeat no value."""

_STEP = re.compile(r"\[(?P<index>[0-9]{1,9})\]|\.?(?P<name>[^.\[]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What validation needs to know beside the tree itself."""

    environ: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()
    """What a secret's relative path is relative to."""
    providers: frozenset[str] | None = None
    """None where the section is no mapping: that is told, and nothing that follows from it."""
    models: frozenset[str] | None = None
    """None as above."""
    profiles: Mapping[str, frozenset[str]] | None = None
    """The models that each profile calls, judges included, by its name; None as above."""
    used_providers: frozenset[str] = frozenset()
    """Those that a profile needs."""
    strategies: Mapping[str, ParametersCheck] | None = None
    """By name; None where any strategy is accepted, with any parameters."""


def surroundings_of(tree: Mapping[str, object], environ: Mapping[str, str], folder: Path, strategies: Mapping[str, ParametersCheck] | None) -> Surroundings:
    """Collect the names in a merged tree, whatever its shape."""
    models = _mapping(tree.get("models"))
    profiles = {name: frozenset(_models_of(_mapping(profile))) for name, profile in _mapping(tree.get("profiles")).items()}
    used = {model for called in profiles.values() for model in called}
    return Surroundings(
        environ=environ,
        folder=folder,
        providers=_names(tree.get("providers")),
        models=_names(tree.get("models")),
        profiles=None if _names(tree.get("profiles")) is None else profiles,
        used_providers=frozenset(str(_mapping(models[model]).get("provider")) for model in used if model in models),
        strategies=strategies,
    )


def known_provider(name: str, info: ValidationInfo) -> str:
    """Return the name of a provider that exists. Raises `PydanticCustomError` with the nearest one that does."""
    return _known("provider", name, info.context.providers if isinstance(info.context, Surroundings) else None)


def known_model(name: str, info: ValidationInfo) -> str:
    """Return the name of a model that exists. Raises `PydanticCustomError` with the nearest one that does."""
    return _known("model", name, info.context.models if isinstance(info.context, Surroundings) else None)


def known_profile(name: str, info: ValidationInfo) -> str:
    """Return the name of a profile that exists. Raises `PydanticCustomError` with the nearest one that does."""
    return _known("profile", name, info.context.profiles if isinstance(info.context, Surroundings) else None)


def known_strategy(name: str, info: ValidationInfo) -> str:
    """Return the name of a strategy that exists. Raises `PydanticCustomError` with the nearest one that does."""
    return _known("strategy", name, info.context.strategies if isinstance(info.context, Surroundings) else None)


def taken_by_strategy(strategy: object, parameters: Mapping[str, object], info: ValidationInfo) -> None:
    """Find out whether a strategy takes these parameters. Raises `PydanticCustomError` with each that it does not; one that is not known takes any."""
    known = info.context.strategies if isinstance(info.context, Surroundings) else None
    check = known.get(strategy) if known is not None and isinstance(strategy, str) else None
    problems: dict[tuple[str | int, ...], str] = {}
    for path, words in check(parameters) if check is not None else ():
        steps = _steps(path)
        problems[steps] = f"{problems[steps]}; {words}" if steps in problems else words
    models = info.context.models if isinstance(info.context, Surroundings) else None
    for place, judge in _judges_of(parameters):
        if models is not None and judge not in models:
            problems.setdefault(("judges", place), f"names no model{hint(judge, models)}")
    if problems:
        raise PydanticCustomError("several", "several problems", {"problems": problems})


def _steps(path: str) -> tuple[str | int, ...]:
    return tuple(found["name"] if found["index"] is None else int(found["index"]) for found in _STEP.finditer(path))


def _known(kind: str, name: str, names: Collection[str] | None) -> str:
    if names is not None and name not in names:
        raise PydanticCustomError("unknown_name", "names no {kind}{hint}", {"kind": kind, "hint": hint(name, names)})
    return name


def _names(section: object) -> frozenset[str] | None:
    return frozenset(section) if isinstance(section, Mapping) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _models_of(profile: Mapping[str, object]) -> Iterator[str]:
    members = profile.get("members")
    for seat in (*(members if isinstance(members, list) else ()), profile.get("refiner")):
        model = _mapping(seat).get("model")
        if isinstance(model, str):
            yield model
    yield from (judge for _, judge in _judges_of(_mapping(profile.get("parameters"))))


def _judges_of(parameters: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """Yield the models that parameters name as judges, with their places: the one parameter that several strategies know and that names models."""
    judges = parameters.get("judges")
    yield from ((place, judge) for place, judge in enumerate(judges if isinstance(judges, list) else ()) if isinstance(judge, str))
