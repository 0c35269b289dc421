"""The house's rules about who may know whom, read from the imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("gateway", "orchestrator", "limiter", "refiner")
SHARED = ("chassis", "models")
EDGES = {"servicer.py", "app.py", "__main__.py"}
# Carriers of a service's ports, and its interceptors, have names that say so.
CARRIER = "grpc_"
WIRE = {"grpc", "grpc_health", "grpc_reflection", "ensemble", "google"}
# What opens connections to providers, and the modules that may know it.
HTTP = {"aiohttp", "httpx", "httpx2", "openai"}
ADAPTERS = {"openai_endpoint.py", "aiohttp_transport.py", "chat_call.py"}
VAGUE = {"utils", "helpers", "common", "manager", "managers", "base", "misc"}


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return whatever may be a module among the names that a file imports, anywhere in it."""
    return tuple(_named(path))


def _named(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: relative import"
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _packages(path: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    return {module.partition(".")[0] for module in _imports(path)}


def _ours(path: Path) -> set[str]:
    """Return the parts of the house that a file imports: chassis, models, a service or the command line."""
    return {module.split(".")[1] for module in _imports(path) if module.startswith("services.")}


def _file(module: str) -> Path | None:
    """Return the file of a module of ours; None for all else."""
    path = ROOT.joinpath(*module.split("."))
    found = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    return found if module.startswith("services.") else None


def _reached(path: Path) -> set[Path]:
    """Return every file of ours that comes with an import of this one, itself included."""
    reached, left = {path}, [path]
    while left:
        new = {file for module in _imports(left.pop()) if (file := _file(module)) is not None} - reached
        reached |= new
        left += new
    return reached


def _is_edge(path: Path) -> bool:
    return path.name in EDGES or path.name.startswith(CARRIER)


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [path for name in SERVICES for path in _sources(f"services/{name}")], ids=_id)
def test_a_service_knows_only_what_is_shared(path: Path) -> None:
    """No service imports another, nor the command line; its domain modules know neither gRPC nor protobuf, and no client of a provider."""
    service = path.relative_to(ROOT / "services").parts[0]
    assert _ours(path) <= {service, *SHARED}
    assert not _packages(path) & HTTP
    if not _is_edge(path):
        assert not _packages(path) & WIRE


@pytest.mark.parametrize(
    "path", [path for name in SERVICES for path in _sources(f"services/{name}") if not _is_edge(path) and path.name != "settings.py"], ids=_id
)
def test_the_domain_does_not_reach_the_wire_by_a_detour(path: Path) -> None:
    """What decides stands on nothing that knows gRPC, but for the telemetry; settings also hold those of the server."""
    assert {_id(file) for file in _reached(path) if _packages(file) & WIRE} <= {"services/chassis/telemetry.py"}


@pytest.mark.parametrize("path", _sources("services/models"), ids=_id)
def test_models_stand_on_the_chassis_alone(path: Path) -> None:
    """The shared vocabulary knows no service; only `wire` and the carriers know gRPC; only the adapter knows the SDK and what carries it."""
    assert _ours(path) <= set(SHARED)
    if "wire" not in path.parts and path.name != "grpc_permits.py":
        assert not _packages(path) & WIRE
    if path.name not in ADAPTERS:
        assert not _packages(path) & HTTP
    assert ("openai" in _packages(path)) == (path.name == "openai_endpoint.py")


@pytest.mark.parametrize("path", _sources("services/chassis"), ids=_id)
def test_the_chassis_stands_on_nothing_of_ours(path: Path) -> None:
    """What every service stands on knows none of them, nor the models."""
    assert _ours(path) <= {"chassis"}
    assert not _packages(path) & (HTTP | {"ensemble"})


@pytest.mark.parametrize("path", [*_sources("services"), *_sources("tests"), *_sources("bench"), *_sources("scripts")], ids=_id)
def test_names_and_fakes(path: Path) -> None:
    """Files and folders are named after what they hold, and nothing of ours is patched in tests."""
    assert not {part.removesuffix(".py") for part in path.relative_to(ROOT).parts} & VAGUE
    assert not any(module.startswith("unittest.mock") for module in _imports(path))


@pytest.mark.parametrize("service", SERVICES)
def test_mains_are_tiny(service: str) -> None:
    """A main hands its application to the chassis and does nothing else."""
    source = (ROOT / "services" / service / "__main__.py").read_text(encoding="utf-8")
    assert len([line for line in source.splitlines() if line.strip()]) <= 5


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_without_what_it_may_not_need(service: str) -> None:
    """The provider's SDK, its carrier, the exporter of traces and what the command line draws with are imported when they are used; they take a second."""
    heavy = [*sorted(HTTP), "opentelemetry.sdk", "opentelemetry.exporter", "rich", "typer", "xllamacpp"]
    code = f"import sys, services.chassis.entry, services.{service}.app; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_no_module_outgrows_the_head() -> None:
    """A hand-written module stays below what one can hold in the head."""
    longest = {_id(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources("services")}
    assert {name: lines for name, lines in longest.items() if lines > 400} == {}
