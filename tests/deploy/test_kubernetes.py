"""The manifests agree with settings, routes, image and each other. No cluster needed, and no kubectl."""

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.spec import FeatureSpec
from scripts.cli import COMMANDS
from service.scoring.routes import router
from service.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
IMAGE = (DEPLOY.parent / "Dockerfile").read_text()
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
RESOURCES = [one for path in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((DEPLOY / path).read_text())]
(CONFIG_MAP,) = KUSTOMIZATION["configMapGenerator"]
#: Name -> the settings' port of what it runs.
OURS = {"agerank-scorer": "port", "agerank-trainer": "trainer_port"}
SECRET_URL = "rediss://:secret@redis.example.com/0"


def resource(kind: str, name: str) -> Any:
    (found,) = [one for one in RESOURCES if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod(name: str) -> Any:
    return resource("Deployment", name)["spec"]["template"]["spec"]


def container(name: str) -> Any:
    (only,) = pod(name)["containers"]
    return only


def environment(name: str) -> dict[str, str]:
    given = {one["name"]: one.get("value", SECRET_URL) for one in container(name)["env"]}
    return dict(re.findall(r"(AGERANK_\w+)=(\S+)", IMAGE)) | given


def mounts(name: str) -> dict[str, tuple[Any, bool]]:
    """Path -> the volume, and whether it may be written."""
    volumes = {one["name"]: one for one in pod(name)["volumes"]}
    found = container(name)["volumeMounts"]
    return {one["mountPath"]: (volumes[one["name"]], not one.get("readOnly", False)) for one in found}


@pytest.fixture(params=OURS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def settings(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the container reads them: a variable that is no setting is refused."""
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, value)
    config = Path(environment(name)["AGERANK_CONFIG"])
    volume, _ = mounts(name)[str(config.parent)]
    assert volume["configMap"]["name"] == CONFIG_MAP["name"]
    assert config.name in CONFIG_MAP["files"]
    monkeypatch.setenv("AGERANK_CONFIG", str(DEPLOY / config.name))
    return Settings()


def test_every_manifest_is_applied_and_the_image_is_of_this_version() -> None:
    assert {DEPLOY / path for path in KUSTOMIZATION["resources"]} == set((DEPLOY / "kubernetes").iterdir())
    (image,) = KUSTOMIZATION["images"]
    assert {container(name)["image"] for name in OURS} == {image["name"]}
    assert image["newTag"] == metadata.version("agerank")


def test_the_settings_are_valid_and_lead_to_what_is_mounted(name: str, settings: Settings) -> None:
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == SECRET_URL
    assert settings.features.name in CONFIG_MAP["files"]
    assert "configMap" in mounts(name)[str(settings.features.parent)][0]
    assert FeatureSpec.from_toml((DEPLOY / settings.features.name).read_text()).fields
    assert settings.log_format == "json"


def test_both_have_one_folder_of_checkpoints_and_the_trainer_writes_it() -> None:
    folder = environment("agerank-trainer")["AGERANK_DATA_DIR"]
    (read, scorer_writes), (written, trainer_writes) = (mounts(name)[folder] for name in OURS)
    assert read == written
    assert (scorer_writes, trainer_writes) == (False, True)
    claim = resource("PersistentVolumeClaim", read["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_ports_and_probes_are_those_of_the_processes(name: str, settings: Settings) -> None:
    (port,) = container(name)["ports"]
    assert port["containerPort"] == getattr(settings, OURS[name])
    probes = [container(name)[probe]["httpGet"] for probe in container(name) if probe.endswith("Probe")]
    assert {probe["port"] for probe in probes} == {port["name"]}
    assert {probe["path"] for probe in probes} <= {route.path for route in router.routes}
    assert container(name)["args"][0] in COMMANDS


def test_what_selects_pods_finds_them(name: str) -> None:
    deployment = resource("Deployment", name)["spec"]
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]


def test_the_service_and_the_budget_are_the_scorers() -> None:
    labels = resource("Deployment", "agerank-scorer")["spec"]["selector"]["matchLabels"]
    service = resource("Service", "agerank")["spec"]
    assert service["selector"] == labels
    assert resource("PodDisruptionBudget", "agerank-scorer")["spec"]["selector"]["matchLabels"] == labels
    (inside,), (outside,) = container("agerank-scorer")["ports"], service["ports"]
    assert (outside["port"], outside["targetPort"]) == (inside["containerPort"], inside["name"])


def test_the_trainer_is_alone() -> None:
    deployment = resource("Deployment", "agerank-trainer")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("name", ["agerank-scorer"], indirect=True)
def test_a_scorer_drains_before_it_is_killed_and_after_it_is_seen_not_to_be_ready(
    name: str, settings: Settings
) -> None:
    assert pod(name)["terminationGracePeriodSeconds"] > settings.drain_s + 4 * settings.shutdown_grace_s
    probe = container(name)["readinessProbe"]
    assert probe["httpGet"]["path"] == "/readyz"
    assert settings.drain_s > 2 * probe["periodSeconds"] * probe["failureThreshold"]


def test_they_have_no_privileges_and_no_variables_of_services(name: str) -> None:
    (user,) = re.findall(r"^USER (.+)$", IMAGE, re.MULTILINE)
    context = pod(name)["securityContext"]
    assert context["runAsNonRoot"]
    assert {context["runAsUser"], context["runAsGroup"], context["fsGroup"]} == {int(user)}
    own = container(name)["securityContext"]
    assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod(name)["enableServiceLinks"] is False
