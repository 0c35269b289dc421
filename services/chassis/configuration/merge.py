"""Layers of settings, and how one is put over another.

Mappings merge key by key, at any depth; everything else, lists too, replaces what was there. Null replaces as well, so it takes back an optional setting of a
lower layer, or removes a named provider, model or profile. A section that is null as a whole (its heading stands there with nothing below) says nothing.

A profile that names its strategy and its members is one of its own: it replaces the profile of that name as a whole, for what was said of another panel, its
quorum or its refiner, would surprise in it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from services.chassis.configuration.problems import Path
from services.chassis.configuration.schema_keys import known_keys

_REPLACED_WHOLE = frozenset({"api_key"})
"""A reference is one value in the form of a mapping: a file from above and a variable from below make no sense together."""
_PROFILES = "profiles"
_NAMED = ("providers", "models", _PROFILES)
_WHOLE = frozenset({"strategy", "members"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Settings that came from one place."""

    name: str
    """The place, for example "ensemble.yaml"."""
    tree: Mapping[str, object]
    places: Mapping[Path, str] = field(default_factory=dict)
    """Where in that place each value stands; empty where the name says all."""

    def source_of(self, path: Path) -> str:
        """Return where this layer sets the value at a path; empty where it does not."""
        value: object = self.tree
        for step in path:
            try:
                value = value[step]  # type: ignore[index]  # Whatever has no such step says so.
            except (LookupError, TypeError):
                return ""
        place = self.places.get(path)
        return f"{self.name}, {place}" if place else self.name

    def has_whole(self, path: Path) -> bool:
        """Whether the path leads into a profile that this layer says as a whole, so that lower layers say nothing of it."""
        return len(path) > 1 and path[0] == _PROFILES and path[1] in _whole_profiles(self.tree)


def merge(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    """Return a new tree of the lower one with the upper one put over it."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and key not in _REPLACED_WHOLE:
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def merged_tree(layers: Sequence[Layer]) -> dict[str, object]:
    """Return the layers put over each other, the first one lowest, without sections that say nothing and entries that were removed."""
    sections = known_keys(())
    tree: dict[str, object] = {}
    for layer in layers:
        said = {section: value for section, value in layer.tree.items() if value is not None or section not in sections}
        tree = merge(_without_profiles(tree, _whole_profiles(said)), said)
    for section in _NAMED:
        entries = tree.get(section)
        if isinstance(entries, Mapping):
            tree[section] = {name: entry for name, entry in entries.items() if entry is not None}
    return tree


def source_of(path: Path, layers: Sequence[Layer]) -> str:
    """Return where the value at a path was set last, or else the section that it is missing from; empty where neither was set."""
    for end in range(len(path), 0, -1):
        for layer in reversed(layers):
            if source := layer.source_of(path[:end]):
                return source
            if layer.has_whole(path):
                break
    return ""


def _whole_profiles(tree: Mapping[str, object]) -> Collection[str]:
    """Return the names of the profiles that a tree says as a whole."""
    profiles = tree.get(_PROFILES)
    if not isinstance(profiles, Mapping):
        return ()
    return [name for name, profile in profiles.items() if isinstance(profile, Mapping) and profile.keys() >= _WHOLE]


def _without_profiles(tree: dict[str, object], names: Collection[str]) -> dict[str, object]:
    """Return the tree without these profiles."""
    profiles = tree.get(_PROFILES)
    if not names or not isinstance(profiles, Mapping):
        return tree
    return tree | {_PROFILES: {name: profile for name, profile in profiles.items() if name not in names}}
