"""Image and compose file agree with the settings, the command line and the files that are here. No daemon needed."""

import json
import shlex
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from models.spec import FeatureSpec
from scripts.cli import COMMANDS
from service.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("scorer", "trainer")
DEFAULT_PORT = {
    "scorer": Settings.model_fields["port"].default,
    "trainer": Settings.model_fields["trainer_port"].default,
}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's lines as (instruction, rest), continuations joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def values(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def image_environment() -> dict[str, str]:
    pairs = [pair.split("=", 1) for rest in values("ENV") for pair in shlex.split(rest)]
    return dict(pairs)


def mounts(service: str) -> dict[str, str]:
    """Path inside the container -> host path or volume."""
    return {one.split(":")[1]: one.split(":")[0] for one in SERVICES[service].get("volumes", [])}


def environment(service: str) -> dict[str, str]:
    return image_environment() | SERVICES[service]["environment"]


@pytest.fixture(params=OURS)
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the container reads them, with the configuration file taken from where it is mounted."""
    for name, value in environment(request.param).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(
        "AGERANK_CONFIG", str(ROOT / mounts(request.param)[environment(request.param)["AGERANK_CONFIG"]])
    )
    return Settings()


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting(service: str) -> None:
    known = {f"AGERANK_{name}".upper() for name in Settings.model_fields} | {"AGERANK_CONFIG"}
    assert {name for name in environment(service) if name.startswith("AGERANK_")} <= known


def test_the_settings_of_both_containers_are_valid(settings: Settings) -> None:
    assert settings.redis_url is not None
    assert urlsplit(settings.redis_url.get_secret_value()).hostname in SERVICES
    assert settings.host == settings.trainer_host == "0.0.0.0"
    assert set(settings.traffic) <= set(settings.strategies)
    features = mounts("trainer")[str(settings.features)]
    assert FeatureSpec.from_toml((ROOT / features).read_text()).fields


def test_both_containers_share_the_folder_of_the_checkpoints() -> None:
    folder = image_environment()["AGERANK_DATA_DIR"]
    assert mounts("scorer")[folder] == mounts("trainer")[folder]
    assert mounts("scorer")[folder] in COMPOSE["volumes"]


def test_the_log_survives_a_restart_and_is_never_evicted() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert mounts("redis")["/data"] in COMPOSE["volumes"]


def test_commands_are_those_of_the_command_line() -> None:
    (entry,), (default,) = json.loads(values("ENTRYPOINT")[0]), json.loads(values("CMD")[0])
    assert entry in entry_points(group="console_scripts").names
    assert default == "serve"
    assert SERVICES["scorer"]["command"] == ["serve"]
    assert SERVICES["trainer"]["command"] == ["train"]
    assert {"serve", "train"} <= set(COMMANDS)


def test_ports_are_those_of_the_settings() -> None:
    assert set(values("EXPOSE")[0].split()) == {str(port) for port in DEFAULT_PORT.values()}
    assert SERVICES["scorer"]["ports"] == [f"127.0.0.1:{DEFAULT_PORT['scorer']}:{DEFAULT_PORT['scorer']}"]
    assert f"http://127.0.0.1:{DEFAULT_PORT['scorer']}/livez" in values("HEALTHCHECK")[0]
    assert f"http://127.0.0.1:{DEFAULT_PORT['trainer']}/" in SERVICES["trainer"]["healthcheck"]["test"][-1]


def test_prometheus_scrapes_both_processes() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {f"agerank-{name}": [f"{name}:{port}"] for name, port in DEFAULT_PORT.items()}
    inside = set(mounts("prometheus"))
    assert {f"/etc/prometheus/{name}" for name in config["rule_files"]} <= inside


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/agerank.yml").read_text())["providers"]
    folder = provider["options"]["path"]
    assert (ROOT / mounts("grafana")[folder] / "agerank.json").is_file()
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / mounts("grafana")[str(home.parent)] / home.name).is_file()
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert urlsplit(source["url"]).hostname in SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_here_or_declared(service: str) -> None:
    for source in mounts(service).values():
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_dependencies_are_services() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_the_image_runs_without_privileges() -> None:
    names = [name for name, _ in instructions()]
    (user,) = values("USER")
    assert int(user) > 0  # of a name, a kubelet cannot tell that it is not root
    assert f"--uid {user} " in values("RUN")[1]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name == "RUN")
    assert f"--owner=agerank {image_environment()['AGERANK_DATA_DIR']}" in values("RUN")[1]


def test_the_image_gets_every_package_and_pinned_versions() -> None:
    copied = {source for rest in values("COPY") for source in rest.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], "pyproject.toml"} <= copied
    assert "--constraint constraints.txt" in values("RUN")[2]
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == admitted
    assert all((ROOT / source).exists() for source in copied)
