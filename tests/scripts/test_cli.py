"""The command line: lists everything, imports only what is called, names the extra that is missing."""

import subprocess
import sys
from importlib import metadata

import pytest
from typer.testing import CliRunner

from scripts.cli import COMMANDS, GROUPS, app


def run_without(modules: list[str], *args: str) -> subprocess.CompletedProcess[str]:
    """`agerank ARGS` in a fresh interpreter where `modules` cannot be imported."""
    code = f"import sys; sys.modules.update(dict.fromkeys({modules}))\nfrom scripts.cli import app\napp({list(args)})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_help_lists_every_command_without_importing_any() -> None:
    missing = ["torch", "fastapi", "onnxruntime", "pyarrow", "scripts.serve", "scripts.train"]
    for group in ("", *(f"{one} " for one in GROUPS)):
        run = run_without(missing, *group.split(), "--help")
        assert run.returncode == 0, run.stderr
        for name in [name for name in COMMANDS if name.rpartition(" ")[0] == group.strip()]:
            assert name.removeprefix(group) in run.stdout
            assert " ".join(COMMANDS[name].summary.split()[:4]) in run.stdout


def test_version_is_the_distribution_s() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"agerank {metadata.version('agerank')}\n"


def test_a_misspelt_command_is_corrected() -> None:
    run = CliRunner().invoke(app, ["trian"])
    assert run.exit_code == 2
    assert "Did you mean 'train'" in run.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_s_own_help_has_all_its_options(name: str) -> None:
    run = CliRunner().invoke(app, [*name.split(), "--help"], prog_name="agerank")
    assert run.exit_code == 0, run.output
    assert f"agerank {name}" in run.output
    assert len(run.output.split("Options")[0].split()) > 15, "the help should teach"


@pytest.mark.parametrize(("name", "module"), [("serve", "fastapi"), ("train", "torch"), ("replay", "torch")])
def test_a_missing_extra_is_named_in_one_line(name: str, module: str) -> None:
    run = run_without([module], name, "--help")
    assert run.returncode == 2
    assert run.stderr == f"agerank {name} needs {module}: pip install 'agerank[{COMMANDS[name].extras}]'\n"


def test_serve_needs_no_torch_and_train_no_web_framework() -> None:
    assert run_without(["torch", "onnx", "pyarrow"], "serve", "--help").returncode == 0
    assert run_without(["fastapi", "starlette", "uvicorn", "onnxruntime"], "train", "--help").returncode == 0


def test_a_fault_in_our_own_modules_is_not_called_a_missing_extra() -> None:
    run = run_without(["service.errors"], "serve", "--help")
    assert run.returncode == 1
    assert "Traceback" in run.stderr


@pytest.mark.parametrize("command", [["serve"], ["train"], ["models", "list"]])
def test_object_storage_without_its_extra_is_a_wrong_setting(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setenv("AGERANK_CHECKPOINTS_URL", "s3://bucket/a")
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 2
    assert "Invalid value: checkpoints_url: object storage needs obstore: pip install 'agerank[objects]'" in run.output


def test_every_extra_named_is_one_of_the_distribution() -> None:
    declared = set(metadata.metadata("agerank").get_all("Provides-Extra") or [])
    assert {extra for entry in COMMANDS.values() for extra in entry.extras.split(",")} <= declared
