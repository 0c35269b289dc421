"""Bring the real tools of tools/versions.toml into .cache/tools: those named, else all that are built with Go.

    .cache/tools/<name>-<version>/<name>    a tool, put there in one step when it was built and has told its version
    .cache/tools/bin/<name>                 a link to it; a PATH that begins with this folder finds all of them

What is there already is only asked for its version. Two that run at once wait for each other, tool by tool.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess  # nosec B404 # programs of our own, with arguments of our own
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "tools"
BIN = FOLDER / "bin"
AT_ONCE = 2
"""How many tools are built at once: a build has stretches, at its start and its end, that use one core."""


class ToolError(Exception):
    """A tool cannot be had; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoTool:
    """A program that is built from a Go module."""

    name: str
    module: str
    version: str
    sum: str
    """The module's hash as go.sum has it."""
    package: str
    """Where in the module the program is."""
    version_variable: str
    """What the linker writes the version into."""
    version_arguments: list[str]

    @property
    def folder(self) -> Path:
        """Where it goes."""
        return FOLDER / f"{self.name}-{self.version}"

    @property
    def there(self) -> bool:
        """Whether this version is there, runs on this machine and says so itself."""
        return self.version.removeprefix("v") in _versions_told(self.folder / self.name, self.version_arguments)

    def bring(self) -> str:
        """Build it; return what was done. Raises ToolError."""
        if shutil.which("go") is None:
            raise ToolError(
                f"{self.name} is built with Go, which is not on the PATH: install Go 1.26 or later (most systems have a package golang; from 1.21 on Go"
                " fetches the newer version it needs itself), then run make tools again"
            )
        began = time.monotonic()
        print(f"{self.name} {self.version}: building", flush=True)
        with _emptied(FOLDER / "build" / self.name) as work:
            # As modules are fetched in a folder that is none, no go.mod of somebody else is looked at.
            found = json.loads(_run(self.name, ["go", "mod", "download", "-json", f"{self.module}@{self.version}"], work))
            if found["Sum"] != self.sum:
                raise ToolError(f"{self.name}: {self.module} {self.version} has the sum {found['Sum']}, and tools/versions.toml has {self.sum}")
            # The module's folder in Go's cache may not be written to, and a build there is refused: it is unpacked anew.
            with zipfile.ZipFile(found["Zip"]) as archive:
                archive.extractall(work / "source")
            source = work / "source" / f"{self.module}@{self.version}"
            ready = work / "ready"
            linked = f"-s -w -X {self.version_variable}={self.version}"
            _run(self.name, ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", linked, "-o", f"{ready}/", self.package], source)
            # The file is named after the package or the module, which is not always what the program is called.
            (built,) = ready.iterdir()
            built.rename(ready / self.name)
            told = _versions_told(ready / self.name, self.version_arguments)
            if self.version.removeprefix("v") not in told:
                raise ToolError(f"{self.name}: what was built says that it is {', '.join(told) or 'of no version'}, not {self.version}")
            _put(ready, self.folder)
        return f"built in {time.monotonic() - began:.0f} s"

    @property
    def binaries(self) -> list[str]:
        """Its programs."""
        return [self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianTool:
    """Programs of a package of Debian or Ubuntu, unpacked and not installed: that needs no root, and no service is started."""

    name: str
    binaries: list[str]
    at_least: str
    version_arguments: list[str]

    @property
    def folder(self) -> Path:
        """Where it goes."""
        return FOLDER / f"{self.name}-debian"

    @property
    def there(self) -> bool:
        """Whether all its programs are there, run on this machine and are new enough."""
        return all(self._new_enough(self.folder / binary) for binary in self.binaries)

    def bring(self) -> str:
        """Unpack it; return what was done. Raises ToolError."""
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise ToolError(
                f"{self.name} is taken from a package of Debian or Ubuntu, and there is no apt-get here: install {' and '.join(self.binaries)}"
                f" {self.at_least} or later yourself, so that they are on the PATH"
            )
        with _emptied(FOLDER / "build" / self.name) as work:
            # Lists and downloads of our own, so that neither root nor the system's own lists are needed, and nothing of the system changes.
            for folder in ("lists/partial", "archives/partial"):
                (work / folder).mkdir(parents=True)
            own = [f"Dir::State::Lists={work}/lists", f"Dir::Cache={work}", "APT::Sandbox::User="]
            options = [argument for option in own for argument in ("-o", option)]
            _run(self.name, ["apt-get", "-q", *options, "update"], work)
            _run(self.name, ["apt-get", "-q", *options, "download", self.name], work)
            (package,) = work.glob(f"{self.name}_*.deb")
            _run(self.name, ["dpkg-deb", "--extract", str(package), "tree"], work)
            ready = work / "ready"
            ready.mkdir()
            for binary in self.binaries:
                (work / "tree" / "usr" / "bin" / binary).rename(ready / binary)
                if not self._new_enough(ready / binary):
                    raise ToolError(f"{binary}: {package.name} is older than {self.at_least}, or does not run here")
            _put(ready, self.folder)
        return f"unpacked from {package.name}"

    def _new_enough(self, binary: Path) -> bool:
        return any(_numbers(told) >= _numbers(self.at_least) for told in _versions_told(binary, self.version_arguments)[:1])


Tool = GoTool | DebianTool


def table() -> dict[str, Tool]:
    """Return every tool of tools/versions.toml by its name."""
    versions = tomllib.loads((ROOT / "tools" / "versions.toml").read_text(encoding="utf-8"))
    go: Mapping[str, Tool] = {name: GoTool(name=name, **entry) for name, entry in versions["go"].items()}
    debian: Mapping[str, Tool] = {name: DebianTool(name=name, **entry) for name, entry in versions["debian"].items()}
    return {**go, **debian}


def bring(tool: Tool) -> str:
    """Have a tool at its version, and a link to it in `BIN`; return what was done. Raises ToolError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _alone(FOLDER / f"{tool.name}.lock"):
        done = "there" if tool.there else tool.bring()
        BIN.mkdir(exist_ok=True)
        for binary in tool.binaries:
            target = Path("..") / tool.folder.name / binary
            link, new = BIN / binary, BIN / f".{binary}"
            if not link.is_symlink() or link.readlink() != target:
                new.unlink(missing_ok=True)
                new.symlink_to(target)
                new.replace(link)
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the tools that are named."""
    tools = table()
    parser = argparse.ArgumentParser(description="Bring the real tools of tools/versions.toml into .cache/tools.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(tools)}; without any, those that are built with Go")
    names = parser.parse_args(arguments).names or [name for name, tool in tools.items() if isinstance(tool, GoTool)]
    if unknown := [name for name in names if name not in tools]:
        parser.error(f"no tool is called {unknown[0]}; there are {', '.join(tools)}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return 0 if all(list(pool.map(_brought, [tools[name] for name in names]))) else 1


def _brought(tool: Tool) -> bool:
    try:
        print(f"{tool.name}: {bring(tool)}", flush=True)
    except ToolError as error:
        print(f"tools: {error}", file=sys.stderr, flush=True)
        return False
    return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Give an empty folder, whatever an attempt that was killed left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(ready: Path, folder: Path) -> None:
    """Move a folder to its place; one that is there was found to be no good."""
    shutil.rmtree(folder, ignore_errors=True)
    ready.rename(folder)


def _run(name: str, command: list[str], folder: Path) -> str:
    """Run a command and return what it says; raises ToolError with the end of it."""
    # Without C no compiler is needed, and the program runs on any libc; a go.work above this folder is not meant.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    result = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=False, capture_output=True, text=True)  # nosec B603 # as above
    if result.returncode != 0:
        raise ToolError(f"{name}: {' '.join(command[:3])} failed:\n{(result.stdout + result.stderr)[-3000:].strip()}")
    return result.stdout


def _versions_told(binary: Path, arguments: Sequence[str]) -> list[str]:
    """Return the versions a program names when it is asked for its own, without a "v"; none where it is not there or does not run."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = [str(binary), *arguments]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, capture_output=True, text=True, timeout=60)  # nosec B603 # as above
        if result.returncode == 0:
            return re.findall(r"\d+\.\d+\.\d+", result.stdout + result.stderr)
    return []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


if __name__ == "__main__":
    sys.exit(main())
