"""Compiles the native engine's kernel while the project is installed, in place where the installation is editable.

Without a C compiler, or with one that refuses, it installs without the kernel: `engine = "native"` then does not start.
"""

import os
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("service/scoring/engines/age/age.c")
LIBRARY = Path("service/scoring/engines/_age.so")  # ignored by git, so named as an artifact
# Not -march: the file itself names the instruction sets, and chooses when it runs. Where they can, they fuse.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-shared")


class KernelHook(BuildHookInterface):
    """Adds the library to a wheel, which is then one for this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if compile_kernel(Path(self.root)):
            build_data["artifacts"].append(f"/{LIBRARY}")
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def compile_kernel(root: Path) -> bool:
    """Whether there is a library now. $CC is the compiler, `cc` where it is not set."""
    sources = sorted((root / SOURCE).parent.glob("*.[ch]"))
    checksum = zlib.crc32(b"".join(one.read_bytes() for one in sources))
    cc = shlex.split(os.environ.get("CC", "cc"))
    command = [*cc, *FLAGS, f"-DSOURCE={checksum}u", "-o", str(LIBRARY), str(SOURCE), "-lm"]
    try:
        (root / LIBRARY).unlink(missing_ok=True)  # one of another source, or another machine, is worse than none
        subprocess.run(command, cwd=root, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f'the kernel of engine = "native" was not compiled: {error}; install a C compiler', file=sys.stderr)
        return False
    return True
