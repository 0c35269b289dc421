"""The contract's own rules, checked on the descriptors and their comments."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
FILES = sorted(path.relative_to(PROTOS).as_posix() for path in (PROTOS / "ensemble").rglob("*.proto"))
MESSAGE, NESTED, FIELD, SERVICE, METHOD = 4, 3, 2, 6, 2


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Compile the protos with bare protoc and return the files with their comments."""
    target = tmp_path_factory.mktemp("descriptors") / "all.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTOS), "--include_source_info", f"--descriptor_set_out={target}", *FILES]
    subprocess.run(command, check=True)
    return {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file}


def _comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(location.path): " ".join(location.leading_comments.split()) for location in file.source_code_info.location}


def _fields(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    for number, message in enumerate(file.message_type):
        yield from _fields_of(message, (MESSAGE, number))


def _fields_of(message: descriptor_pb2.DescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    for position, field in enumerate(message.field):
        in_oneof = field.HasField("oneof_index") and not field.proto3_optional
        yield f"{message.name}.{field.name}", (*path, FIELD, position), in_oneof
    for number, nested in enumerate(message.nested_type):
        # A map's entry is written by the compiler.
        if not nested.options.map_entry:
            yield from _fields_of(nested, (*path, NESTED, number))


@pytest.mark.parametrize("name", FILES)
def test_every_field_says_what_it_wants(descriptors: dict[str, descriptor_pb2.FileDescriptorProto], name: str) -> None:
    """A field's comment begins with whether it is required, what it defaults to, or that it is output; members of a oneof say what happened."""
    file = descriptors[name]
    comments = _comments(file)
    for field, path, in_oneof in _fields(file):
        if not in_oneof:
            assert comments[path].startswith(("Required", "Optional; default", "Output only.")), field


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("_service.proto")])
def test_every_rpc_lists_its_errors(descriptors: dict[str, descriptor_pb2.FileDescriptorProto], name: str) -> None:
    """What can go wrong stands with each call, and requests and responses bear its name."""
    file = descriptors[name]
    comments = _comments(file)
    for number, service in enumerate(file.service):
        for position, method in enumerate(service.method):
            assert "Errors:" in comments[SERVICE, number, METHOD, position], method.name
            assert method.input_type.endswith(f".{method.name}Request")
            assert method.output_type.endswith(f".{method.name}Response")


@pytest.mark.parametrize("name", FILES)
def test_every_file_can_be_vendored(descriptors: dict[str, descriptor_pb2.FileDescriptorProto], name: str) -> None:
    """A file imports nothing but protobuf's own and ours, and is ready for Java, Go and C#."""
    file = descriptors[name]
    assert all(dependency.startswith(("google/protobuf/", "ensemble/v1/")) for dependency in file.dependency)
    assert file.options.java_multiple_files
    assert file.options.java_package
    assert file.options.go_package
    assert file.options.csharp_namespace
    assert file.syntax == "proto3"


def test_generated_code_is_fresh() -> None:
    """What is committed is what the generator makes."""
    result = subprocess.run([sys.executable, "scripts/generate.py", "--check", "protos"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_stale_code_is_found(tmp_path: Path) -> None:
    """The check fails where a proto changed and the code did not."""
    folder = tmp_path / "protos" / "ensemble" / "v1"
    folder.mkdir(parents=True)
    for path in (PROTOS / "ensemble" / "v1").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    source = folder / "message.proto"
    source.write_text(source.read_text(encoding="utf-8").replace("string text = 2;", "string words = 2;"), encoding="utf-8")
    result = subprocess.run([sys.executable, "scripts/generate.py", "--check", str(tmp_path / "protos")], cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert "message_pb2.py" in result.stdout
