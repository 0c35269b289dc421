"""Check the lock files: hashes everywhere, no address of a registry, and every floor of pyproject.toml met."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent


def problems(lock: str, wanted: list[str]) -> list[str]:
    """Return what is wrong with a lock file's text, given the requirements it must cover."""
    found = []
    if "://" in lock or "--index" in lock or "--find-links" in lock:
        found.append("names a host")
    entries = [entry for entry in re.split(r"\n(?=\S)", lock.strip()) if not entry.startswith("#")]
    found += [f"{entry.split()[0]} has no hash" for entry in entries if "--hash=sha256:" not in entry]
    pinned: dict[str, list[Version]] = {}
    for entry in entries:
        name, _, version = entry.split()[0].partition("==")
        if not version:
            found.append(f"{name} has no exact version")
            continue
        pinned.setdefault(canonicalize_name(name.partition("[")[0]), []).append(Version(version))
    for text in wanted:
        requirement = Requirement(text)
        versions = pinned.get(canonicalize_name(requirement.name), [])
        if not versions or not all(requirement.specifier.contains(version) for version in versions):
            found.append(f"{text} is not met")
    return found


def main() -> int:
    """Check both files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["local"]]
    groups = project["dependency-groups"]
    failed = False
    for name, wanted in (("runtime", runtime), ("dev", [*runtime, *groups["dev"], *groups["build"]])):
        for problem in problems((ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8"), wanted):
            print(f"requirements/{name}.txt: {problem}; run make lock")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
