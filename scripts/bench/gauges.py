"""What a process tells at /metrics, and how much of it came between two readings."""

from itertools import pairwise
from math import inf, isinf, nan

from prometheus_client.parser import text_string_to_metric_families

from scripts.bench.processes import Server, read
from scripts.bench.report import BenchError

#: (name, labels) -> value
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(server: Server) -> Samples:
    """All of them now. Raises BenchError where nobody answers."""
    status, body = read(server.port, "/metrics")
    if status != 200:
        raise BenchError(f"{server.name} does not answer /metrics")
    families = text_string_to_metric_families(body.decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    """By how much a counter grew, over all series with these labels."""
    return sum(
        value - before.get((found, given), 0.0)
        for (found, given), value in after.items()
        if found == name and labels.items() <= dict(given).items()
    )


def mean(before: Samples, after: Samples, name: str, **labels: str) -> float | None:
    """Of what a histogram observed meanwhile, None where that was nothing."""
    count = grown(before, after, f"{name}_count", **labels)
    return grown(before, after, f"{name}_sum", **labels) / count if count else None


def quantile(before: Samples, after: Samples, name: str, q: float) -> float:
    """Of what a histogram observed meanwhile, as PromQL's histogram_quantile has it: NaN where that was nothing."""
    bounds = sorted({float(dict(given)["le"]) for found, given in after if found == f"{name}_bucket"})
    counts = {0.0: 0.0} | {
        bound: grown(before, after, f"{name}_bucket", le="+Inf" if isinf(bound) else str(bound)) for bound in bounds
    }
    wanted = q * counts.get(inf, 0.0)
    for low, high in pairwise(counts):
        if wanted and counts[high] >= wanted:
            return low if isinf(high) else low + (high - low) * (wanted - counts[low]) / (counts[high] - counts[low])
    return nan
