"""LitServe: `python -m scripts.bench.rivals.lit PORT`."""

import sys
from typing import Any

import litserve

from scripts.bench.rivals.ranking import GreedyRanking


class RankApi(litserve.LitAPI):
    """The four hooks of its documentation; what it does not need it leaves out."""

    def setup(self, device: str) -> None:
        self.ranking = GreedyRanking()

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.ranking.of_json(request)


if __name__ == "__main__":
    server = litserve.LitServer(RankApi(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
