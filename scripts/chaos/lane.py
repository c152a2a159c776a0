"""A folder of its own, and the trainers that write there one after the other."""

from pathlib import Path

import redis

from scripts.chaos.lives import Life, Watch, read_all
from scripts.chaos.traffic import LANE, SPEC, STRATEGIES, WINDOW_MS
from scripts.demo_processes import free_port
from service.checkpoints import LocalStore
from service.streams import StreamNames

PARTITIONS = 3
NAMES = StreamNames("chaos", PARTITIONS)
NEVER_S = 1e8


class Lane:
    """Of a trainer.

    Args:
        folder: not there yet.
        url: of the server with the log.
        full_every: versions from one full one to the next.
        ranks: processes that each trainer is.
        parts: their `gradient_parts`.
    """

    def __init__(self, folder: Path, url: str, client: redis.Redis, full_every: int, *, ranks: int, parts: int) -> None:
        folder.mkdir()
        (folder / "features.toml").write_text(SPEC, encoding="utf-8")
        self.store = LocalStore(folder / "data" / "checkpoints" / LANE)
        self.watch = Watch(self.store, client, NAMES)
        self.client, self.ranks, self._folder = client, ranks, folder
        self._settings: dict[str, object] = {
            "data_dir": str(folder / "data"),
            "features": str(folder / "features.toml"),
            "redis_url": url,
            "redis_prefix": "chaos",
            "partitions": PARTITIONS,
            "strategies": STRATEGIES,
            "hidden": (16, 16, 8),
            "gate_hidden": 8,
            "initial_ctr": 0.2,
            "learning_rate": 0.01,
            "optimizer": "sparse_adam",  # with which there are deltas
            "full_every": full_every,
            "batch_size": 64,
            "gradient_parts": parts,
            "impressions": "events",
            "attribution_window_s": WINDOW_MS / 1000,
            "publish_interval_s": 0.02,
            "keep_versions": 3,
            "log_format": "json",
            "trainer_port": 0,
        }

    def has_learned(self) -> bool:
        """Whether the next one will find a version to go on from, and not only the first."""
        return bool(self.watch.newest())

    def begin(self) -> Life:
        return Life(self._folder, self._settings, self.ranks)

    def finish(self) -> dict[str, int]:
        """One that nobody kills reads the log to its end, and publishes once. Returns what became of the events."""
        ports = _free_ports(self.ranks)
        settings = self._settings | {"trainer_port": ports[0], "publish_interval_s": NEVER_S}
        life = Life(self._folder, settings, self.ranks)
        join = read_all(life, ports, NAMES.inputs)
        life.stop()
        return join


def _free_ports(count: int) -> range:
    """One after the other, as ranks take them."""
    while True:
        first = free_port(0)
        ports = range(first, first + count)
        if all(free_port(port) == port for port in ports):
            return ports
