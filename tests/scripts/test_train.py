"""`agerank train` as it is typed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts.cli import app
from service import checkpoints
from service.checkpoints import LocalStore

SPEC = """
[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 16
"""


def test_wrong_settings_exit_2_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "agerank.toml"
    config.write_text(f'features = "{tmp_path}/nowhere.toml"')
    monkeypatch.setenv("AGERANK_CONFIG", "")  # which --config sets for the whole process
    run = CliRunner().invoke(app, ["train", "--config", str(config)])
    assert run.exit_code == 2
    assert "nowhere.toml" in run.output
    assert "Traceback" not in run.output


@pytest.mark.slow
def test_a_burst_on_an_empty_log_leaves_version_0_and_no_server(tmp_path: Path) -> None:
    """Nor does it need torch.compile, which takes seconds to import."""
    (tmp_path / "features.toml").write_text(SPEC)
    without = "import sys; sys.modules['torch._dynamo'] = None"
    code = f"{without}\nfrom scripts.cli import app\napp(['train', '--burst', '--json'])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "AGERANK_TRAINER_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    row = {"examples": 0, "steps": 0, "version": 0, "log_loss": None, "pcoc": None}
    assert json.loads(run.stdout.splitlines()[-1]) == [row]
    assert checkpoints.current(LocalStore(tmp_path / "agerank-data" / "checkpoints" / "default")) == 0
    port = int((tmp_path / "agerank-data" / "redis" / "port").read_text())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
