"""YAML as the configuration reads it: plain data, each value with the place where it stands.

A subset of YAML 1.2's core schema: mappings with text keys, lists, text, true and false, decimal numbers, null. What surprises people is not read at all: YAML
1.1's "no" and "on", octal and sexagesimal numbers, dates. What can do harm is refused: tags, anchors and aliases (a few of them unfold into gigabytes), keys
that stand twice, nesting without end, and files too large to be meant.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from services.chassis.configuration.problems import Path, Problem, written_path

MOST_BYTES = 256 << 10
MOST_DEPTH = 24

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(?P<true>true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,30}(\.[0-9]{0,30}([eE][-+]?[0-9]{1,3})?|[eE][-+]?[0-9]{1,3})")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# The library quotes what it stumbled over, and that may be a piece of a secret. Only texts whose quotes hold punctuation or a token's name are passed on.
_HARMLESS = re.compile(r"([^'\"]|'[^\w'\"]{1,2}'|'<[a-z ]+>')+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a text says."""

    tree: object = None
    places: Mapping[Path, str] = field(default_factory=dict)
    """Where each value begins, for example "line 7, column 5"."""
    problems: tuple[Problem, ...] = ()
    broken: bool = False
    """True where the text is not YAML at all, so that the tree says nothing."""


class _Loader(yaml.BaseLoader):
    """Composes nodes without resolving anything, and refuses what is not read."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # The stubs leave it out.
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused("anchors and aliases are not read", event)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags are not read; text that begins with an exclamation mark must be quoted", event)
        if isinstance(event, yaml.ScalarEvent) and _SURROGATE.search(event.value):
            raise _refused("half a surrogate pair is not read", event)
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise _refused(f"nesting deeper than {MOST_DEPTH} is not read", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_document(content: bytes, source: str) -> Document:
    """Read a file's content; `source` is the file's name in problems."""
    if len(content) > MOST_BYTES:
        return _broken(f"is larger than {MOST_BYTES} bytes", source)
    try:
        text = content.decode()  # A byte order mark is left to the library, which skips it.
    except UnicodeDecodeError as error:
        return _broken(f"is not UTF-8 at byte {error.start}", source)
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(mark) if mark else "the end"
        return _broken(f"is not well-formed: {_harmless(error)}", f"{source}, {place}")
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = f"line {before.count(chr(10)) + 1}, column {error.position - (before.rfind(chr(10)) + 1) + 1}"
        return _broken("is not well-formed: control characters are not read", f"{source}, {place}")
    reading = _Reading(source)
    return Document(tree=reading.value_of(node, ()), places=reading.places, problems=tuple(reading.problems))


class _Reading:
    """Turns nodes into plain data and notes where each stood."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.places: dict[Path, str] = {}
        self.problems: list[Problem] = []

    def value_of(self, node: yaml.Node | None, path: Path) -> object:
        if node is None:
            return None
        self.places.setdefault(path, _place(node.start_mark))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value_of(item, (*path, index)) for index, item in enumerate(node.value)]
        return plain_value(node.value) if isinstance(node, yaml.ScalarNode) and node.style is None else node.value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self.value_of(key_node, ()) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._refuse(path, "has a key that is not text; names that look like numbers or words of YAML must be quoted", key_node)
            elif key in values:
                self._refuse((*path, key), f"stands twice; first at {self.places[(*path, key)]}", key_node)
            else:
                self.places[(*path, key)] = _place(key_node.start_mark)
                values[key] = self.value_of(value_node, (*path, key))
        return values

    def _refuse(self, path: Path, message: str, node: yaml.Node) -> None:
        self.problems.append(Problem(path=written_path(path), message=message, source=f"{self.source}, {_place(node.start_mark)}"))


def _broken(message: str, source: str) -> Document:
    return Document(problems=(Problem(path="", message=message, source=source),), broken=True)


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _refused(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark = event.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark if isinstance(mark, yaml.Mark) else None)


def _harmless(error: yaml.MarkedYAMLError) -> str:
    return error.problem if error.problem and _HARMLESS.fullmatch(error.problem) else "what stands here cannot be read"


def plain_value(text: str) -> object:
    """Return what a scalar without quotes means."""
    if _NULL.fullmatch(text):
        return None
    if found := _BOOL.fullmatch(text):
        return found["true"] is not None
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
