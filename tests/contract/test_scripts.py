"""The guards of `make check` that are our own: each passes what is right and stops what is not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lock_check import problems

ROOT = Path(__file__).resolve().parents[2]
PROTO = """\
syntax = "proto3";
package demo.v1;
message Thing {
  string name = 1;
}
"""
BUF = "version: v2\nmodules:\n  - path: protos\nbreaking:\n  use:\n    - FILE\n"
HASH = "    --hash=sha256:" + "0" * 64
LOCK = f"""\
# A comment.
alpha==2.1 ; python_full_version < '3.12' \\
{HASH}
alpha==2.3 ; python_full_version >= '3.12' \\
{HASH}
beta-two[extra]==1.0 \\
{HASH}
"""


def _git(folder: Path, *arguments: str) -> None:
    name = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


def _breaking(folder: Path) -> tuple[int, str]:
    result = subprocess.run([sys.executable, "scripts/breaking.py"], cwd=folder, check=False, capture_output=True, text=True)
    return result.returncode, result.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with one proto, not yet a git checkout."""
    folder = tmp_path / "project"
    (folder / "protos" / "demo" / "v1").mkdir(parents=True)
    (folder / "protos" / "demo" / "v1" / "thing.proto").write_text(PROTO, encoding="utf-8")
    (folder / "buf.yaml").write_text(BUF, encoding="utf-8")
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "breaking.py", folder / "scripts")
    return folder


def _break(folder: Path) -> None:
    path = folder / "protos" / "demo" / "v1" / "thing.proto"
    path.write_text(PROTO.replace("string name = 1;", "int32 name = 1;"), encoding="utf-8")


def test_a_broken_promise_is_found(project: Path) -> None:
    """A field's type may not change under the callers of main; adding one may."""
    _git(project, "init", "--initial-branch=main")
    _git(project, "add", ".")
    _git(project, "commit", "--message=first")
    path = project / "protos" / "demo" / "v1" / "thing.proto"
    path.write_text(PROTO.replace("}", "  string more = 2;\n}"), encoding="utf-8")
    assert _breaking(project)[0] == 0
    _break(project)
    code, said = _breaking(project)
    assert code != 0
    assert "against refs/heads/main" in said
    assert "thing.proto" in said


def test_a_clone_is_compared_with_the_remote(project: Path, tmp_path: Path) -> None:
    """Own commits do not count as promised; a shallow clone that is on no branch has only what it is."""
    _git(project, "init", "--initial-branch=main")
    _git(project, "add", ".")
    _git(project, "commit", "--message=first")
    _git(tmp_path, "clone", str(project), "clone")
    clone = tmp_path / "clone"
    _break(clone)
    _git(clone, "commit", "--all", "--message=own")
    code, said = _breaking(clone)
    assert code != 0
    assert "against refs/remotes/origin/main" in said
    _git(clone, "checkout", "--detach")
    _git(clone, "branch", "--delete", "--force", "main")
    _git(clone, "remote", "remove", "origin")
    code, said = _breaking(clone)
    assert code == 0
    assert "against HEAD" in said


def test_nothing_to_compare_with_is_said(project: Path) -> None:
    """Without git, without a commit, before main has protos: each passes, and says why."""
    assert _breaking(project) == (0, "breaking: no git checkout, or no git, so nothing to compare with\n")
    _git(project, "init", "--initial-branch=main")
    assert _breaking(project) == (0, "breaking: no commit yet, so nothing to compare with\n")
    _git(project, "add", "scripts")
    _git(project, "commit", "--message=first")
    assert _breaking(project) == (0, "breaking: refs/heads/main has no protos yet\n")


def test_an_unreadable_checkout_is_not_passed(project: Path) -> None:
    """Where git will not read the checkout, nothing was compared, and that is no success."""
    (project / ".git").write_text("gitdir: nowhere", encoding="utf-8")
    code, said = _breaking(project)
    assert code == 1
    assert "not a git repository" in said


@pytest.mark.parametrize(
    ("lock", "wanted", "found"),
    [
        (LOCK, ["Alpha>=2", "beta_two"], []),
        (LOCK.replace(HASH, "", 1), [], ["alpha==2.1 has no hash"]),
        ("--index-url https://example.com\n" + LOCK, [], ["names a host", "--index-url has no hash", "--index-url has no exact version"]),
        (LOCK, ["alpha>=2.2"], ["alpha>=2.2 is not met"]),
        (LOCK, ["gamma"], ["gamma is not met"]),
    ],
)
def test_lock_files_are_judged(lock: str, wanted: list[str], found: list[str]) -> None:
    """Each fault has its word; every version that some Python gets must meet the floor."""
    assert problems(lock, wanted) == found
