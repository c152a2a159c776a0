"""The kernel as pip compiles it. Hatchling itself is only there while it does."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from service.scoring.engines import kernel

ROOT = Path(__file__).parents[1]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    parts = ["hatchling", "builders", "hooks", "plugin", "interface"]
    for depth in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), ModuleType(parts[depth - 1]))
    sys.modules[".".join(parts)].BuildHookInterface = object  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(build: ModuleType, tmp_path: Path) -> Path:
    shutil.copytree((ROOT / build.SOURCE).parent, (tmp_path / build.SOURCE).parent)
    return tmp_path


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_what_it_compiles_is_of_the_source_that_the_kernel_reads(
    build: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-O0"])
    assert build.compile_kernel(root)
    monkeypatch.setattr(kernel, "LIBRARY", root / build.LIBRARY)
    assert kernel.library().age_best() >= 0


def test_without_a_compiler_there_is_no_library_rather_than_an_old_one(
    build: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for cc in ("no-such-compiler", "false", ""):
        monkeypatch.setenv("CC", cc)
        (root / build.LIBRARY).write_text("old")
        assert not build.compile_kernel(root)
        assert not (root / build.LIBRARY).exists()
        assert "install a C compiler" in capfd.readouterr().err


def test_where_it_may_not_write_it_installs_without(
    build: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "false")
    (root / build.LIBRARY).mkdir()  # as little to be removed as in a folder of somebody else
    assert not build.compile_kernel(root)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_where_there_is_a_compiler_the_installed_kernel_is_there_to_be_tested() -> None:
    assert kernel.library().age_best() >= 0
