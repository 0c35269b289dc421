"""Look up whether what the lock files name has known vulnerabilities; say plainly what could not be looked up.

    vulnerability found                      -> fails
    all packages looked up, nothing found    -> passes
    some, or none, could be looked up        -> says so in one line, and passes unless AUDIT=required is set

pip-audit ends with 0 also where no advisory could be reached, so its exit code says nothing here; its report does.
"""

import json
import os
import subprocess  # nosec B404 # runs pip-audit
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCES = ("pypi", "osv")
"""Of advisories, as pip-audit names them; a further one is asked for where those before it left packages out."""
SECONDS = 300
"""For one source."""
SHOWN = 8
"""Packages that are named of those that were not looked up."""
REQUIRED = "required"


@dataclass(slots=True)
class Audit:
    """What is known of the packages of one lock file."""

    file: str
    packages: set[str] = field(default_factory=set)
    looked_up: set[str] = field(default_factory=set)
    vulnerabilities: set[str] = field(default_factory=set)
    """Each as a line for people."""

    def add(self, report: Mapping[str, Any]) -> None:
        """Add what one source reported, as pip-audit writes it in JSON."""
        for package in report["dependencies"]:
            self.packages.add(package["name"])
            if "skip_reason" in package:
                continue
            self.looked_up.add(package["name"])
            for found in package["vulns"]:
                fixed = f"; fixed in {', '.join(found['fix_versions'])}" if found.get("fix_versions") else ""
                self.vulnerabilities.add(f"{package['name']} {package['version']} has {found['id']}{fixed}")

    @property
    def missing(self) -> list[str]:
        """Packages that were not looked up."""
        return sorted(self.packages - self.looked_up)


def verdict(audit: Audit, *, required: bool) -> tuple[list[str], bool]:
    """Return what to say, a line each, and whether it is a failure."""
    said = [f"{audit.file}: {line}" for line in sorted(audit.vulnerabilities)]
    known, all_of_them = len(audit.looked_up), len(audit.packages)
    if known == 0:
        said.append(f"NOT AUDITED: {audit.file}: no advisory could be reached for any of its {all_of_them or 'unknown number of'} packages")
    elif audit.missing:
        more = ", …" if len(audit.missing) > SHOWN else ""
        said.append(f"PARTLY AUDITED: {audit.file}: {known} of {all_of_them} packages; not {', '.join(audit.missing[:SHOWN])}{more}")
    else:
        said.append(f"audited: {audit.file}: {known} packages, {len(audit.vulnerabilities) or 'no'} known vulnerabilities")
    return said, bool(audit.vulnerabilities) or (required and (known == 0 or bool(audit.missing)))


def report_of(output: str) -> Mapping[str, Any]:
    """Return pip-audit's report; an empty one where it wrote none, as it does where a source of advisories cannot be reached."""
    try:
        report = json.loads(output)
    except ValueError:
        return {"dependencies": []}
    return report if isinstance(report, dict) and "dependencies" in report else {"dependencies": []}


def audited(file: str) -> Audit:
    """Ask the sources for the packages of a lock file."""
    audit = Audit(file)
    for source in SOURCES:
        if audit.packages and not audit.missing:
            break
        audit.add(report_of(_output(file, source)))
    return audit


def _output(file: str, source: str) -> str:
    program = str(Path(sys.executable).parent / "pip-audit")
    command = [program, "--format", "json", "--progress-spinner", "off", "--require-hashes", "--disable-pip", "-s", source, "-r", file]
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS).stdout  # nosec B603 # arguments of our own
    except subprocess.TimeoutExpired:
        return ""


def main(arguments: Sequence[str]) -> int:
    """Audit each lock file that is named."""
    wish = os.environ.get("AUDIT", "")
    if wish not in {"", REQUIRED}:
        print(f"AUDIT is {REQUIRED}, or not set")
        return 1
    # A set, not a generator: also after a failure the rest is audited.
    return int(True in {_told(audited(file), required=wish == REQUIRED) for file in arguments})


def _told(audit: Audit, *, required: bool) -> bool:
    said, failed = verdict(audit, required=required)
    for line in said:
        print(line, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
