"""Launch: several ranks on this machine, as torchrun starts them, and what a terminal expects of one command."""

import logging
import os
import sys
from collections.abc import Sequence

_STOP_TIMEOUT_S = 300  # a last version may be large


def is_first() -> bool:
    """Whether this process is one alone, or rank 0."""
    return os.environ.get("RANK", "0") == "0"


def launch(ranks: int, command: Sequence[str]) -> None:
    """Runs `python -m scripts.cli COMMAND` as so many ranks, until all have ended.

    A signal that ends us is passed on to them, and they end well. Where one fails the others are ended.

    Raises:
        OSError: a rank failed; it has said why.
    """
    # Takes a second to import.
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # tracebacks of its own machinery
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id="agerank",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=_STOP_TIMEOUT_S,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "scripts.cli", *command)
    except SignalException:
        return
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise ChildProcessError(f"rank {rank} ended with {failure.exitcode}") from None
