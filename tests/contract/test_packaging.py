"""What is shipped: the wheel holds all that runs, the lock files hold what they must and name no host, and no file names a machine."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_all_that_runs(tmp_path: Path) -> None:
    """Services, generated code, packaged configuration, prompts and type markers are in it; tests are not."""
    code = f"import hatchling.build, os; os.chdir({str(ROOT)!r}); print(hatchling.build.build_wheel({str(tmp_path)!r}))"
    name = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()[-1]
    names = set(zipfile.ZipFile(tmp_path / name).namelist())
    own = set(_files(ROOT / "services"))
    generated = {path.removeprefix("protos/") for path in _files(ROOT / "protos") if path.endswith((".py", ".pyi", "py.typed"))}
    assert {"services/chassis/configuration/defaults.yaml", "services/models/prompting/prompt_files/fuse.1.txt", "services/py.typed"} <= own
    assert {"ensemble/py.typed", "ensemble/v1/gateway_service_pb2.py", "ensemble/v1/gateway_service_pb2_grpc.pyi"} <= generated
    assert own | generated <= names
    assert not any(entry.startswith(("tests/", "bench/", "protos/")) for entry in names)


def test_the_lock_files_are_whole() -> None:
    """Hashes everywhere, floors met, no registry named."""
    result = subprocess.run([sys.executable, "scripts/lock_check.py"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_no_file_names_a_machine_or_a_registry() -> None:
    """The project's files hold no path of somebody's machine and no package registry's host."""
    hosts = ["pypi" + ".org", "python" + "hosted", "npm" + "js.org", "proxy.go" + "lang", "maven" + ".org"]
    pattern = re.compile("|".join([*map(re.escape, hosts), "/ho" + "me/[a-z]", "/wo" + "rk/", "/ro" + "ot/"]))
    assert [path for path in _files(ROOT) if pattern.search((ROOT / path).read_text(encoding="utf-8", errors="ignore"))] == []


def _files(folder: Path) -> list[str]:
    """Return the project's own files; those that tools made begin with a dot or lie in folders that do."""
    own = {".ci", ".github", ".gitattributes", ".gitignore"}
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and path.name not in own:
            continue
        if path.is_dir() and path.name != "__pycache__":
            found += _files(path)
        elif path.is_file():
            found.append(path.relative_to(ROOT).as_posix())
    return found
