"""The house's rules about who may know whom, read from the imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("gateway", "orchestrator", "limiter", "refiner")
SHARED = ("chassis", "models")
EDGES = {"servicer.py", "app.py", "__main__.py"}
WIRE = ("grpc", "ensemble", "google")


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [path for name in SERVICES for path in _sources(f"services/{name}")], ids=_id)
def test_a_service_knows_only_what_is_shared(path: Path) -> None:
    """No service imports another, nor the command line; its domain modules know neither gRPC nor protobuf."""
    service = path.relative_to(ROOT / "services").parts[0]
    for module in _imports(path):
        if module.startswith("services."):
            assert module.split(".")[1] in {service, *SHARED}, module
        if path.name not in EDGES:
            assert module.partition(".")[0] not in WIRE, module


@pytest.mark.parametrize("path", _sources("services/models"), ids=_id)
def test_models_stand_on_the_chassis_alone(path: Path) -> None:
    """The shared vocabulary knows no service; only `wire` and the carriers know gRPC; only the adapter knows the SDK."""
    carrier = "wire" in path.parts or path.name == "grpc_permits.py"
    for module in _imports(path):
        if module.startswith("services."):
            assert module.split(".")[1] in SHARED, module
        if not carrier:
            assert module.partition(".")[0] not in WIRE, module
        if path.name != "openai_endpoint.py":
            assert module.partition(".")[0] not in {"openai", "aiohttp", "httpx2"}, module


@pytest.mark.parametrize("path", _sources("services/chassis"), ids=_id)
def test_the_chassis_stands_on_nothing_of_ours(path: Path) -> None:
    """What every service stands on knows none of them, nor the models."""
    for module in _imports(path):
        if module.startswith("services."):
            assert module.split(".")[1] == "chassis", module


@pytest.mark.parametrize("path", [*_sources("services"), *_sources("tests"), *_sources("bench"), *_sources("scripts")], ids=_id)
def test_names_and_fakes(path: Path) -> None:
    """Files are named after what they hold, and nothing of ours is patched in tests."""
    assert path.stem not in {"utils", "helpers", "common", "manager", "base", "misc"}
    assert not any(module.startswith("unittest.mock") for module in _imports(path))


@pytest.mark.parametrize("service", SERVICES)
def test_mains_are_tiny(service: str) -> None:
    """A main hands its application to the chassis and does nothing else."""
    source = (ROOT / "services" / service / "__main__.py").read_text(encoding="utf-8")
    assert len([line for line in source.splitlines() if line.strip()]) <= 5


def test_no_module_outgrows_the_head() -> None:
    """A hand-written module stays below what one can hold in the head."""
    longest = {_id(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources("services")}
    assert {name: lines for name, lines in longest.items() if lines > 400} == {}
