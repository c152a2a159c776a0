"""What grew between two readings of /metrics."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram, start_http_server

from scripts.bench.gauges import grown, mean, quantile, samples
from scripts.bench.report import BenchError


def test_means_and_quantiles_are_of_what_came_between() -> None:
    registry = CollectorRegistry()
    seconds = Histogram("x_seconds", "Any.", ["kind"], buckets=(1, 2, 3, 5), registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    process: Any = SimpleNamespace(port=server.server_port, name="it")
    seconds.labels("a").observe(4.0)
    before = samples(process)
    assert math.isnan(quantile(before, before, "x_seconds", 0.5))
    assert mean(before, before, "x_seconds") is None
    for number in range(10):
        seconds.labels("a").observe(1.1)
        seconds.labels("b").observe(2.5 if number else 9.0)
    after = samples(process)
    assert grown(before, after, "x_seconds_count") == 20
    assert grown(before, after, "x_seconds_count", kind="b") == 10
    assert mean(before, after, "x_seconds", kind="a") == pytest.approx(1.1)
    assert quantile(before, after, "x_seconds", 0.25) == 1.5  # the half of those between 1 and 2
    assert quantile(before, after, "x_seconds", 0.95) == 3.0
    assert quantile(before, after, "x_seconds", 1.0) == 5.0  # beyond all bounds: the last of them
    server.shutdown()
    server.server_close()
    thread.join()
    with pytest.raises(BenchError, match="it does not answer"):
        samples(process)
