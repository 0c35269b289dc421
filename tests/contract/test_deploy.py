"""What is deployed: the compose file confines every container, publishes the gateway alone and names no secret; the image is not root's and says how it is."""

import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from services.chassis.configuration import load_configuration
from services.cli.addresses import SERVICES as ENSEMBLE

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
CONTAINERS = cast("dict[str, dict[str, Any]]", COMPOSE["services"])
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
FINAL_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]
PINNED = re.compile(r"[a-z0-9/-]+:v?[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9-]+)?")
"""An exact version, on any registry."""
MODEL_CALLERS = {"orchestrator", "refiner"}
PROVIDER_KEYS = {"openrouter_api_key", "openai_api_key"}


def _default(text: str) -> str:
    """Return what compose puts in where no variable is set."""
    return re.sub(r"\$\{\w+(?::?-([^}]*))?\}", lambda found: found[1] or "", text)


def _environment(name: str) -> dict[str, str]:
    return {key: _default(value).strip() for key, value in CONTAINERS[name].get("environment", {}).items()}


def test_the_stack_is_whole() -> None:
    """The four services, store, model and traces start by themselves; what watches them only where it is asked for."""
    watching = {name for name, container in CONTAINERS.items() if container.get("profiles") == ["monitoring"]}
    assert set(CONTAINERS) - watching == {*ENSEMBLE, "redis", "model", "jaeger"}
    assert watching == {"prometheus", "grafana"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_each_container_is_confined(name: str) -> None:
    """Read-only, without capabilities and ways to get them, not root, bounded, restarted, and asked how it is."""
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "cap_add" not in container
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not container.get("privileged")
    assert re.fullmatch(r"[1-9][0-9]*:[0-9]+", container["user"])
    assert container["mem_limit"]
    assert container["cpus"]
    assert container["pids_limit"]
    assert container["restart"] == "unless-stopped"
    assert container["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_only_the_gateway_is_published_and_on_loopback() -> None:
    """No other container has a port on the host, and none shares the host's network or processes."""
    published = {name: container["ports"] for name, container in CONTAINERS.items() if "ports" in container}
    assert {name: [_default(port) for port in ports] for name, ports in published.items()} == {"gateway": ["127.0.0.1:50051:50051"]}
    assert not [name for name, container in CONTAINERS.items() if {"network_mode", "pid", "ipc"} & set(container)]


def test_the_pages_are_published_on_loopback_where_asked_for() -> None:
    """The file for whoever wants to look at them opens nothing to other machines."""
    pages = yaml.safe_load((DEPLOY / "pages.yml").read_text(encoding="utf-8"))["services"]
    assert {name: [_default(port) for port in page["ports"]] for name, page in pages.items()} == {
        "jaeger": ["127.0.0.1:16686:16686"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_a_container_reaches_no_more_than_it_must() -> None:
    """The store is the limiter's alone, and only those that call hosted models have a way out of the machine, beside the gateway, whose port is published."""
    networks = cast("dict[str, dict[str, Any]]", COMPOSE["networks"])
    members = {network: {name for name, container in CONTAINERS.items() if network in container["networks"]} for network in networks}
    assert {network for network in networks if not networks[network].get("internal")} == {"front", "providers"}
    assert (members["store"], members["providers"], members["front"]) == ({"limiter", "redis"}, MODEL_CALLERS, {"gateway"})


def test_secrets_are_files_that_git_does_not_see() -> None:
    """Each comes from the folder that is ignored, and is handed to those alone that need it."""
    assert {_default(secret["file"]) for secret in COMPOSE["secrets"].values()} == {f"./deploy/secrets/{name}" for name in COMPOSE["secrets"]}
    holders = {secret: {name for name, container in CONTAINERS.items() if secret in container.get("secrets", ())} for secret in COMPOSE["secrets"]}
    assert holders == {"redis_password": {"limiter", "redis"}, "grafana_password": {"grafana"}, **dict.fromkeys(PROVIDER_KEYS, MODEL_CALLERS)}
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_no_secret_stands_in_what_is_deployed() -> None:
    """Variables that name one say in which file it is; nothing looks like a key; no URL has a password."""
    for name in CONTAINERS:
        for variable, value in _environment(name).items():
            if re.search(r"KEY|PASSWORD|SECRET|TOKEN", variable):
                assert re.fullmatch(r"\{file: /run/secrets/\w+\}|/run/secrets/\w+", value), variable
    for path in [ROOT / "docker-compose.yml", *(path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.parts)]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bsk-(?!verify)\w{6}|://[^/\s:@]+:[^/\s@]+@|\b[0-9a-f]{64}\b", text), path


def test_images_are_pinned() -> None:
    """Every image has an exact version, in the compose file and in the Dockerfile, and both name the same ones."""
    images = {name: _default(container["image"]) for name, container in CONTAINERS.items()}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert [name for name, image in images.items() if PINNED.fullmatch(image) is None] == []
    assert {images[name] for name in (*ENSEMBLE, "model")} == {f"ensemble-grpc:{version}"}
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    assert PINNED.fullmatch(arguments["BASE_IMAGE"])
    assert PINNED.fullmatch(arguments["GO_IMAGE"])
    assert arguments["VERSION"] == version
    assert re.fullmatch(r"v[0-9]+\.[0-9]+\.[0-9]+", arguments["PROBE_VERSION"])
    built = [container["build"]["args"] for container in CONTAINERS.values() if "build" in container]
    assert [{name: _default(value) for name, value in one.items()} for one in built] == [
        {name: arguments[name] for name in ("BASE_IMAGE", "GO_IMAGE", "VERSION")}
    ]


def test_the_image_is_made_in_stages_and_is_not_roots() -> None:
    """The last stage says who runs and how that is probed, brings only finished things along, and installs but one library."""
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert bases == {"${GO_IMAGE}", "${BASE_IMAGE}", "dependencies"}
    assert re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", FINAL_STAGE, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*grpc_health_probe", FINAL_STAGE, re.MULTILINE)
    assert re.findall(r"^COPY (?!--from=)", FINAL_STAGE, re.MULTILINE) == []
    assert re.findall(r"apt-get install [-a-z ]*", FINAL_STAGE) == ["apt-get install --yes --quiet --quiet --no-install-recommends libgomp"]
    assert not re.search(r"\b(pip|curl|wget)\b", FINAL_STAGE)
    labels = re.findall(r"org\.opencontainers\.image\.(\w+)=\$\{(\w+)\}", FINAL_STAGE)
    assert {label for label, _ in labels} == {"version", "revision", "source", "licenses", "title", "description"}
    assert all(argument == label.upper() for label, argument in labels)


def test_packages_are_installed_locked() -> None:
    """Whatever pip fetches has its hash in a lock file and is no source; the rest comes without an index."""
    installs = re.findall(r"python3 -m pip .*", DOCKERFILE)
    assert len(installs) == 4
    for install in installs:
        assert "--no-index" in install or {"--require-hashes", "--only-binary"} <= set(install.split())
    assert "--requirement /build/requirements/runtime.txt" in installs[0]


def test_the_context_holds_what_the_image_is_made_of() -> None:
    """Everything is left out but what the Dockerfile copies; of that, nothing that tools made."""
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    copied = {source for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for source in sources.split()}
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == {source.split("/")[0] for source in copied}
    assert {"**/__pycache__", "**/.*"} <= set(lines)


def test_the_build_tools_of_the_image_are_those_of_the_project() -> None:
    """What the Dockerfile takes out of the development lock is there, with the backend that pyproject.toml names."""
    found = re.search(r"\^\(([\w|-]+)\)==", DOCKERFILE)
    assert found is not None
    wanted = set(found[1].split("|"))
    locked = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"), re.MULTILINE))
    assert "hatchling" in wanted
    assert wanted <= locked


@pytest.mark.parametrize("name", ENSEMBLE)
def test_each_service_runs_on_the_mounted_configuration(name: str, tmp_path: Path) -> None:
    """With the container's own variables and secrets the file is right, listens on the port that is probed, and the services find each other."""
    environ = {}
    for variable, value in _environment(name).items():
        secret = re.fullmatch(r"\{file: /run/secrets/(\w+)\}", value)
        if secret is not None:
            assert secret[1] in CONTAINERS[name]["secrets"]
            (tmp_path / secret[1]).write_text("" if secret[1] in PROVIDER_KEYS else "password", encoding="utf-8")
            value = f"{{file: {tmp_path / secret[1]}}}"  # noqa: PLW2901 - the container's path is not here
        environ[variable] = value
    configuration = load_configuration(DEPLOY / "ensemble.yaml", environ=environ, folder=tmp_path)
    listen = {service: getattr(configuration, service).listen for service in ENSEMBLE}
    port = listen[name].rpartition(":")[2]
    assert f"-addr=127.0.0.1:{port} " in _environment(name)["ENSEMBLE_PROBE"]
    assert _environment(name)["ENSEMBLE_PROBE"].endswith(f"-service=ensemble.v1.{name.capitalize()}Service")
    found = {
        "orchestrator": {configuration.gateway.orchestrator},
        "limiter": {configuration.gateway.limiter, configuration.orchestrator.limiter, configuration.refiner.limiter},
        "refiner": {configuration.orchestrator.refiner},
    }
    assert found == {service: {f"dns:///{service}:{listen[service].rpartition(':')[2]}"} for service in found}
    assert configuration.limiter.store.kind == ("redis" if name == "limiter" else "memory")
    assert configuration.providers["local"].base_url == "http://model:50060/v1"
    assert CONTAINERS[name]["entrypoint"] == ["sh", "-c", "exec python -m services.$$0 $$SERVER_FLAGS"]
    assert CONTAINERS[name]["command"] == [name]


def test_all_services_share_their_arguments() -> None:
    """What is said in the one place reaches each of the four, so that none is left with other flags than the rest."""
    assert {_environment(name)["SERVER_FLAGS"] for name in ENSEMBLE} == {_default(COMPOSE["x-flags"]["SERVER_FLAGS"])}


def test_what_is_mounted_is_there() -> None:
    """Every file and folder that the compose file mounts or builds from is in the repository, and mounted read-only."""
    mounts = [mount for container in CONTAINERS.values() for mount in container.get("volumes", ()) if mount.startswith("./")]
    assert mounts
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (ROOT / source).exists(), source
        assert mode == "ro"


def test_the_services_are_given_time_to_drain() -> None:
    """A container is killed only after the configured grace is over."""
    configuration = load_configuration(DEPLOY / "ensemble.yaml", environ={}, folder=ROOT)
    for name in ENSEMBLE:
        assert int(CONTAINERS[name]["stop_grace_period"].removesuffix("s")) >= getattr(configuration, name).grace_seconds + 5


def test_the_datasources_are_those_of_the_stack() -> None:
    """Grafana is pointed at containers that there are, and Prometheus likewise."""
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/datasources.yaml").read_text(encoding="utf-8"))["datasources"]
    assert {source["uid"]: source["url"] for source in sources} == {"prometheus": "http://prometheus:9090", "jaeger": "http://jaeger:16686"}
    jobs: list[Mapping[str, Any]] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    hosts = {target.split(":")[0] for job in jobs for configs in job["static_configs"] for target in configs["targets"]}
    assert hosts - {"127.0.0.1"} <= set(CONTAINERS)
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/dashboards.yaml").read_text(encoding="utf-8"))["providers"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in CONTAINERS["grafana"]["volumes"]


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """Passwords are fresh and long, keys begin empty; a second run changes neither; nobody else gets into the folder."""

    def make() -> dict[str, str]:
        subprocess.run(["bash", DEPLOY / "secrets.sh"], check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "ENSEMBLE_SECRETS": str(tmp_path / "s")})
        return {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "s").iterdir()}

    first = make()
    assert set(first) == set(COMPOSE["secrets"])
    assert {name: bool(re.fullmatch(r"[0-9a-f]{64}", text)) for name, text in first.items()} == {name: name not in PROVIDER_KEYS for name in first}
    assert first["redis_password"] != first["grafana_password"]
    (tmp_path / "s" / "openrouter_api_key").write_text("mine", encoding="utf-8")
    assert make() == {**first, "openrouter_api_key": "mine"}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 in {0o444, 0o644} for path in (tmp_path / "s").iterdir())


def test_the_scripts_are_shell() -> None:
    """Bash reads each of them without complaint."""
    scripts = sorted(DEPLOY.glob("*.sh"))
    assert [script.name for script in scripts] == ["base-image.sh", "secrets.sh", "verify.sh"]
    for script in scripts:
        assert subprocess.run(["bash", "-n", script], check=False, capture_output=True).stderr == b""
        assert script.stat().st_mode & 0o100
