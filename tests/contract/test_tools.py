"""`make tools`: what is pinned is built once, put in its place only when it is right, and each failure says what to do.

Go is stood in for by a program that keeps to its command line: it "downloads" a zip and "builds" a script that tells a version.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.tools import DebianTool, GoTool, table

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = """\
[go.probe]
module = "example.com/some/probe-tool"
version = "v1.2.3"
sum = "h1:right"
package = "./cmd/probe"
version_variable = "main.version"
version_arguments = ["-version"]

[debian.server]
binaries = ["server", "checker"]
at_least = "2.42"
version_arguments = ["--version"]
"""
GO = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@" # a shell reads this line: the interpreter's path may hold a blank, which no first line of a script can
' '''
import json, os, pathlib, sys, time
log = pathlib.Path({log!r})
with log.open("a") as lines:
    lines.write(" ".join(sys.argv[1:3]) + "\\n")
if sys.argv[1:3] == ["mod", "download"]:
    print(json.dumps({{"Sum": os.environ.get("FAKE_SUM", "h1:right"), "Zip": {archive!r}}}))
elif sys.argv[1] == "build":
    if "FAKE_FAILURE" in os.environ:
        sys.exit("cmd/probe/main.go:1:1: it does not compile")
    assert sys.argv[-1] == "./cmd/probe" and pathlib.Path("cmd/probe/main.go").exists()
    (linked,) = [one for one in sys.argv if "main.version" in one]
    version = os.environ.get("FAKE_VERSION", linked.rpartition("=")[2])
    target = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    target.mkdir()
    # A while in which two that do not wait for each other would both be building.
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    (target / "probe-tool").write_text("#!/bin/sh\\necho probe " + version + "\\n")
    (target / "probe-tool").chmod(0o755)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project with two tools in its table."""

    folder: Path
    programs: Path
    """A folder of programs, which is the whole PATH."""

    def command(self, *names: str) -> list[str]:
        """Return how the script is called."""
        return [sys.executable, str(self.folder / "scripts" / "tools.py"), *names]

    def environment(self, **more: str) -> Mapping[str, str]:
        """Return the environment it is called with."""
        return {"PATH": str(self.programs), **more}

    def make_tools(self, *names: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Bring tools."""
        return subprocess.run(self.command(*names), env=self.environment(**environment), check=False, capture_output=True, text=True, timeout=60)

    def add(self, name: str, text: str) -> Path:
        """Add a program."""
        path = self.programs / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    @property
    def binary(self) -> Path:
        """Where the tool is found."""
        return self.folder / ".cache" / "tools" / "bin" / "probe"

    @property
    def go_calls(self) -> list[str]:
        """What Go was asked for."""
        log = self.folder / "go.log"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Make a project with a table, and a Go that knows its module."""
    folder, programs = tmp_path / "project", tmp_path / "programs"
    for one in (folder / "scripts", folder / "tools", programs):
        one.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "tools.py", folder / "scripts")
    (folder / "tools" / "versions.toml").write_text(VERSIONS, encoding="utf-8")
    archive = tmp_path / "module.zip"
    with zipfile.ZipFile(archive, "w") as module:
        module.writestr("example.com/some/probe-tool@v1.2.3/cmd/probe/main.go", "package main\n")
    made = Project(folder=folder, programs=programs)
    made.add("go", GO.format(python=sys.executable, log=str(folder / "go.log"), archive=str(archive)))
    # What the tool that is built runs on.
    (programs / "sh").symlink_to("/bin/sh")
    return made


def _version(binary: Path) -> str:
    return subprocess.run([str(binary), "-version"], check=True, capture_output=True, text=True).stdout.strip()


def test_a_tool_is_built_once(project: Project) -> None:
    """The second time nothing is done; the tool bears its name, whatever its package is called, and nothing of the build is left."""
    first = project.make_tools()
    assert (first.returncode, first.stderr) == (0, "")
    assert _version(project.binary) == "probe v1.2.3"
    assert project.go_calls == ["mod download", "build -trimpath"]
    again = project.make_tools()
    assert (again.returncode, again.stdout) == (0, "probe: there\n")
    assert len(project.go_calls) == 2
    assert sorted(os.listdir(project.folder / ".cache" / "tools")) == ["bin", "build", "probe-v1.2.3", "probe.lock"]
    assert os.listdir(project.folder / ".cache" / "tools" / "build") == []


def test_another_version_is_built_beside_and_linked(project: Project) -> None:
    """A branch with other versions keeps its own; the link shows the one that was asked for last."""
    assert project.make_tools().returncode == 0
    table_file = project.folder / "tools" / "versions.toml"
    table_file.write_text(VERSIONS.replace("v1.2.3", "v1.3.0"), encoding="utf-8")
    with zipfile.ZipFile(project.folder.parent / "module.zip", "a") as module:
        module.writestr("example.com/some/probe-tool@v1.3.0/cmd/probe/main.go", "package main\n")
    assert project.make_tools().returncode == 0
    assert _version(project.binary) == "probe v1.3.0"
    table_file.write_text(VERSIONS, encoding="utf-8")
    assert project.make_tools().stdout == "probe: there\n"
    assert _version(project.binary) == "probe v1.2.3"


def test_two_at_once_build_it_once(project: Project) -> None:
    """The second waits for the first and finds it there."""
    environment = project.environment(FAKE_SECONDS="0.5")
    both = [subprocess.Popen(project.command(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=60) for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert sum("probe: there" in output for output, _ in said) == 1
    assert project.go_calls == ["mod download", "build -trimpath"]


def test_without_go_it_says_what_is_missing(project: Project) -> None:
    """And fails; but not where everything is there already."""
    (project.programs / "go").rename(project.programs / "hidden")
    missing = project.make_tools()
    assert missing.returncode == 1
    assert "probe is built with Go, which is not on the PATH: install Go 1.26 or later" in missing.stderr
    assert "Traceback" not in missing.stderr
    (project.programs / "hidden").rename(project.programs / "go")
    assert project.make_tools().returncode == 0
    (project.programs / "go").unlink()
    assert project.make_tools().returncode == 0


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FAKE_SUM": "h1:wrong"}, "example.com/some/probe-tool v1.2.3 has the sum h1:wrong, and tools/versions.toml has h1:right"),
        ({"FAKE_VERSION": "v9.9.9"}, "what was built says that it is 9.9.9, not v1.2.3"),
        ({"FAKE_VERSION": "unknown"}, "what was built says that it is of no version, not v1.2.3"),
        ({"FAKE_FAILURE": "1"}, "it does not compile"),
    ],
)
def test_what_is_not_right_is_not_put_in_place(project: Project, environment: Mapping[str, str], words: str) -> None:
    """Another module, another version, or no program at all; the next attempt starts afresh."""
    failed = project.make_tools(**environment)
    assert failed.returncode == 1
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not project.binary.exists()
    assert project.make_tools().returncode == 0
    assert _version(project.binary) == "probe v1.2.3"


def test_a_tool_that_does_not_run_here_is_built_anew(project: Project) -> None:
    """Whatever broke it: a disk that was full, or a folder that came from another machine."""
    assert project.make_tools().returncode == 0
    project.binary.resolve().write_bytes(b"\x7fELF of another machine")
    assert "probe: built in" in project.make_tools().stdout
    assert _version(project.binary) == "probe v1.2.3"


def test_a_build_that_was_killed_is_no_obstacle(project: Project) -> None:
    """What it left is thrown away."""
    left = project.folder / ".cache" / "tools" / "build" / "probe" / "ready"
    left.mkdir(parents=True)
    (left / "half").write_text("a half", encoding="utf-8")
    assert project.make_tools().returncode == 0


def test_a_name_that_is_none_is_refused(project: Project) -> None:
    """With those that there are."""
    refused = project.make_tools("prob")
    assert refused.returncode == 2
    assert "no tool is called prob; there are probe, server" in refused.stderr


APT = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@" # a shell reads this line: the interpreter's path may hold a blank, which no first line of a script can
' '''
import pathlib, sys
log = pathlib.Path({log!r})
with log.open("a") as lines:
    lines.write(sys.argv[-2] + " " + sys.argv[-1] + "\\n")
if "download" in sys.argv:
    pathlib.Path("server_2.45.6+ds-1_amd64.deb").write_text("a package")
"""
DPKG = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@" # a shell reads this line: the interpreter's path may hold a blank, which no first line of a script can
' '''
import os, pathlib, sys
folder = pathlib.Path(sys.argv[-1]) / "usr" / "bin"
folder.mkdir(parents=True)
for name in ("server", "checker"):
    (folder / name).write_text("#!/bin/sh\\necho " + name + ", version " + os.environ.get("FAKE_VERSION", "2.45.6") + "+ds 9.9.9\\n")
    (folder / name).chmod(0o755)
"""


def test_a_debian_package_is_unpacked_and_not_installed(project: Project) -> None:
    """Where it is new enough; without apt-get the message says what to install."""
    missing = project.make_tools("server")
    assert missing.returncode == 1
    assert "there is no apt-get here: install server and checker 2.42 or later yourself" in missing.stderr
    project.add("apt-get", APT.format(python=sys.executable, log=str(project.folder / "apt.log")))
    project.add("dpkg-deb", DPKG.format(python=sys.executable))
    old = project.make_tools("server", FAKE_VERSION="2.41.9")
    assert old.returncode == 1
    assert "is older than 2.42" in old.stderr
    done = project.make_tools("server")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "server: unpacked from server_2.45.6+ds-1_amd64.deb\n"
    assert project.make_tools("server").stdout == "server: there\n"
    assert {"server", "checker"} <= set(os.listdir(project.folder / ".cache" / "tools" / "bin"))
    assert (project.folder / "apt.log").read_text(encoding="utf-8").splitlines()[-1] == "download server"


def test_every_tool_is_pinned(tmp_path: Path) -> None:
    """Exact versions with their sums, and nothing that names a registry."""
    tools = table()
    assert {"jaeger", "grpc_health_probe", "grpcurl", "ghz", "prometheus"} <= set(tools)
    for tool in tools.values():
        if isinstance(tool, GoTool):
            assert tool.version.count(".") == 2
            assert tool.sum.startswith("h1:")
        else:
            assert isinstance(tool, DebianTool)
    text = (ROOT / "tools" / "versions.toml").read_text("utf-8") + (ROOT / "scripts" / "tools.py").read_text("utf-8")
    assert "://" not in text
    assert "proxy" not in text.replace("module proxy", "")
