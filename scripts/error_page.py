"""Write the generated parts of docs/errors.md, or check that they are fresh.

Usage: error_page.py [--check] [PAGE]. Each part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; what stands around them is written by hand. The
tables come from `services.chassis.error_table` and `scripts.grpc_errors`, the programs from the folder snippets/errors beside the page.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from scripts.grpc_errors import GRPC_ERRORS
from services.chassis.error_table import EACH, TABLE, Row

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
SNIPPETS = {"go": ("main.go", "go"), "java": ("Errors.java", "java"), "typescript": ("errors.ts", "ts"), "python": ("errors.py", "python")}
"""The file of each program and the name of its language in Markdown."""
_PART = re.compile(r"(<!-- begin (?P<name>[a-z-]+) -->\n).*?(<!-- end (?P=name) -->\n)", re.DOTALL)


class PageError(Exception):
    """The page does not have exactly the parts that there are."""


def refreshed(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Return the page with each part as it is made now. Raises `PageError` where a part is missing, or one is unknown."""
    named = [found["name"] for found in _PART.finditer(page)]
    if sorted(named) != sorted(parts):
        raise PageError(f"the parts are {', '.join(parts)}, each once; the page has {', '.join(named)}")
    return _PART.sub(lambda found: f"{found[1]}{parts[found['name']]()}{found[3]}", page)


def parts_of(snippets: Path) -> dict[str, Callable[[], str]]:
    """Return what makes each part, with the programs in a folder."""
    tables: dict[str, Callable[[], str]] = {"overview": overview, "errors": errors, "grpc-errors": grpc_errors}
    return tables | {name: lambda file=file, language=language: _program(snippets / file, language) for name, (file, language) in SNIPPETS.items()}


def overview() -> str:
    """Return the table of all errors."""
    rows = [(row.code.name, f"[`{_reason(row)}`](#{_anchor(row)})", row.repeat.partition(":")[0]) for row in TABLE]
    return _table(("status", "reason", "may be repeated"), rows)


def errors() -> str:
    """Return a section for each error."""
    return "\n".join("\n".join(map(_wrapped, _section(row))) for row in TABLE)


def grpc_errors() -> str:
    """Return the table of gRPC's own errors."""
    rows = [(row.code.name, f"`{row.text}`", row.situation, row.advice, row.repeat) for row in GRPC_ERRORS]
    return _table(("status", "text in the C core", "happens when", "what to do", "may be repeated"), rows)


def _section(row: Row) -> Iterator[str]:
    yield from (f"### {_title(row)}", "", row.situation, "")
    yield f"- **What to do:** {row.advice}"
    yield f"- **May be repeated:** {row.repeat}. {row.spent}"
    if row.details:
        yield f"- **Details beside ErrorInfo:** {'; '.join(f'`{detail.name}`{_if(detail.always)}, {detail.holds}' for detail in row.details)}."
    if row.metadata:
        yield "- **`ErrorInfo.metadata`:**"
        yield from (f"  - `{_key(name)}`{_if(key.always)}: {key.meaning}" for name, key in row.metadata.items())
    yield ""


def _wrapped(line: str) -> str:
    """Return a paragraph or an item of a list in lines of our usual length."""
    indent = re.match(r" *(- )?", line)
    return textwrap.fill(line, 160, subsequent_indent=" " * len(indent[0] if indent else ""), break_long_words=False, break_on_hyphens=False)


def _if(always: bool) -> str:
    return "" if always else " (not always)"


def _key(name: str) -> str:
    return f"{name.removesuffix(EACH)}<id>" if name.endswith(f".{EACH}") else name


def _reason(row: Row) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: f"<{found[1].upper()}>", row.reason)


def _title(row: Row) -> str:
    return f"{row.code.name} `{_reason(row)}`"


def _anchor(row: Row) -> str:
    """Return the anchor that Markdown on the web makes of the section's title."""
    return re.sub(r"[^\w -]", "", _title(row).lower()).replace(" ", "-")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _program(path: Path, language: str) -> str:
    # What tells our own linter about a file is of no use to a reader.
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if not line.startswith("# ruff:")]
    return f"```{language}\n{''.join(lines)}```\n"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    options = parser.parse_args()
    kept = options.page.read_text(encoding="utf-8")
    try:
        fresh = refreshed(kept, parts_of(options.page.parent / "snippets" / "errors"))
    except PageError as error:
        print(error)
        return 1
    if not options.check:
        options.page.write_text(fresh, encoding="utf-8")
        return 0
    if fresh != kept:
        print(f"stale: {options.page.name}; run make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
