"""The keys file: API keys of tenants outside the configuration, for whoever hands out keys without touching anything else.

    team-a:
      - {sha256: 64 hexadecimal figures, id: who holds it}

It is YAML as the configuration is. A tenant with nothing below it has no keys here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.chassis.configuration.document import MOST_BYTES, read_document
from services.chassis.configuration.merge import Layer, source_of
from services.chassis.configuration.nearest import hint
from services.chassis.configuration.problems import ConfigurationError, Problem, told, written_path
from services.chassis.configuration.section import Listed, Name
from services.chassis.configuration.tenants import KeySection, TenantSection, repeated

Keys = Mapping[str, tuple[KeySection, ...]]
"""By their tenants."""

_WHOLE = "keys file"
"""Stands for a path where a problem is one of the whole file."""
_CHECK: TypeAdapter[dict[str, tuple[KeySection, ...]]] = TypeAdapter(dict[Name, Listed[KeySection]])


def read_keys_file(file: Path, tenants: Mapping[str, TenantSection] | None = None) -> Keys:
    """Read and check a keys file; with the tenants of a configuration also whether it goes with them.

    Raises `ConfigurationError` with everything that is wrong, each with its path and its place in the file.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError([Problem(path="gateway.keys_file", message=f"the file cannot be read ({type(error).__name__})", source=str(file))]) from None
    return keys_in(content, str(file), tenants)


def keys_in(content: bytes, source: str, tenants: Mapping[str, TenantSection] | None = None) -> Keys:
    """Check what stands in a keys file, as `read_keys_file` does; `source` is its name in problems."""
    document = read_document(content, source)
    if document.broken:
        raise ConfigurationError([_named(problem) for problem in document.problems])
    tree = {} if document.tree is None else document.tree
    if not isinstance(tree, dict):
        raise ConfigurationError([Problem(path=_WHOLE, message="must be a mapping of tenants to their keys", source=source)])
    problems = [_named(problem) for problem in document.problems]
    layers = [Layer(name=source, tree=tree, places=document.places)]
    keys: Keys = {}
    try:
        keys = _CHECK.validate_python({tenant: [] if entries is None else entries for tenant, entries in tree.items()})
    except ValidationError as refusal:
        known = tuple(KeySection.model_fields)
        found = list(told(refusal, lambda _: known))
    else:
        found = [((tenant, *path), words) for tenant, path, words in _conflicts(keys, tenants)]
    problems += [Problem(path=written_path(path), message=words, source=source_of(path, layers)) for path, words in found]
    # Raised out here, because the library's error holds what stands in the file, which may be a key, and must not be met in the traceback of ours.
    if problems:
        raise ConfigurationError(problems)
    return keys


def _named(problem: Problem) -> Problem:
    """Return a problem that says whose it is where it is one of the file as a whole, which is no configuration."""
    return problem if problem.path else replace(problem, path=_WHOLE)


def _conflicts(keys: Keys, tenants: Mapping[str, TenantSection] | None) -> list[tuple[str, tuple[str | int, ...], str]]:
    """Return what does not go together: tenant, path below it and words."""
    unknown = [] if tenants is None else [(name, (), f"names no tenant{hint(name, tenants)}") for name in keys if name not in tenants]
    entries = ((name, (place, "sha256"), key.sha256) for name, listed in keys.items() for place, key in enumerate(listed))
    elsewhere = {key.sha256: name for name, tenant in (tenants or {}).items() for key in tenant.keys or ()}
    return [*unknown, *repeated(entries, elsewhere)]
