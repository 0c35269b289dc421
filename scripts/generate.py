"""Generate the code of the protos beside them, or check that what is committed is what the generator makes.

Usage: generate.py [--check] FOLDER. Messages and their types for every file; stubs for those that hold a service, which are named *_service.proto.
"""

import argparse
import subprocess  # nosec B404 # runs the generators
import sys
import tempfile
from pathlib import Path

PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(source: Path, target: Path) -> None:
    """Run protoc with the pinned plugins of this environment."""
    files = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.proto"))
    services = [name for name in files if name.endswith("_service.proto")]
    binaries = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={binaries / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(source), *plugins]
    _run([*protoc, f"--python_out={target}", f"--mypy_out=quiet:{target}", *files])
    _run([*protoc, f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services])


def stale(source: Path) -> list[str]:
    """Return what differs between the committed code and what the generator makes now."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(source, fresh)
        made = _generated(fresh)
        kept = _generated(source)
        return sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


def _generated(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for pattern in PATTERNS for path in root.rglob(pattern)}


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)  # nosec B603 # arguments of our own


def main() -> int:
    """Generate or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if not options.check:
        generate(options.folder, options.folder)
        return 0
    names = stale(options.folder)
    for name in names:
        print(f"stale: {name}; run make proto")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
