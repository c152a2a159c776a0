"""The map of a package, its docstring, names all that is in its folder, and nothing else."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "models/beliefs", "models/evaluation", "models/evaluation/worlds", "scripts", "scripts/chaos")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_map_names_what_is_there(package: str) -> None:
    folder = ROOT / package
    document = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    packages = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    words = set(re.findall(r"[a-z]\w*[/*]?", document))
    missing = {name for name in files | packages if not any(fnmatch(name, word) for word in words)}
    assert not missing, f"{package}/__init__.py does not name {sorted(missing)}"
    listed = set(re.findall(r"^ *([a-z]\w*/?) {2,}\S", document, re.MULTILINE))
    assert listed <= files | packages, f"{package}/__init__.py names {sorted(listed - files - packages)}"
