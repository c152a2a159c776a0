"""The servers of `agerank bench http`: ours and its rivals, started and ready, and what each is asked for."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import typer

from scripts.bench.load import post, send_all
from scripts.bench.naive import NaiveNetwork, plain_graph
from scripts.bench.plain import PlainNetwork
from scripts.bench.processes import Cores, Server
from scripts.bench.report import BenchError
from scripts.bench.rivals import FOLDER, RIVALS
from scripts.bench.rivals.ranking import save
from scripts.bench.scorer import RANK, checkpoints, log_server, put_items, scorer
from scripts.bench.work import SPEC, Catalogue, Model, publishing, rows
from scripts.demo_processes import environment, free_port
from service.scoring.engines import Kind

CHECKED = 20  # candidates of the request that every server is tried with
TOLERANCE = 1e-5
OURS, PEERS = "agerank", ("litserve", "bentoml")


class Case(NamedTuple):
    """A server, and what it is asked for."""

    server: str
    version: str
    strategy: str
    features: str
    running: Server
    path: str


def start(
    stack: ExitStack, folder: Path, rivals: Mapping[str, str], python: Path, where: Cores, engine: Kind
) -> list[Case]:
    """All servers, ready, and what to ask of each. The stack ends them."""
    model, catalogue = Model(), Catalogue()
    with publishing(checkpoints(folder), model) as versions:
        versions.publish()
    graph = plain_graph(NaiveNetwork(model.params))
    save(folder, spec=SPEC, graph=graph)
    url = stack.enter_context(log_server(folder, where))
    ours = stack.enter_context(scorer(folder, url, where, engine=engine)).wait()
    put_items(ours, catalogue, catalogue.items)
    asked = [("greedy", "full"), ("age_ts", "full"), ("age_ucb", "full"), ("age_ts", "ids")]
    cases = [Case(OURS, metadata.version(OURS), *one, ours, RANK) for one in asked]
    for name, version in rivals.items():
        server = stack.enter_context(rival(name, folder, python, where)).wait()
        cases.append(Case(name, version, "greedy", "full", server, RIVALS[name].path))
    for case in cases:
        check(case, PlainNetwork(graph))
    return cases


def check(case: Case, plain: PlainNetwork) -> None:
    """Raises BenchError where a server does not do the work: all candidates, no warning, and of greedy the scores."""
    request = Catalogue().request(0, CHECKED, ids_only=case.features == "ids", strategy=case.strategy)
    outcome = send_all(case.running.port, [post(case.path, json.dumps(request).encode())])
    if outcome.failures:
        raise BenchError(f"{case.server} failed: {dict(outcome.failures)}")
    answer = json.loads(outcome.answers[0])
    found = {one["id"]: one["score"] for one in answer["items"]}
    batch = rows(Catalogue().request(0, CHECKED))
    scores = plain(batch.context_index, batch.item_index).tolist()
    expected = dict(zip([one["id"] for one in request["candidates"]], scores, strict=True))
    differs = any(abs(found.get(one, 0.0) - score) > TOLERANCE for one, score in expected.items())
    if found.keys() != expected.keys() or "warnings" in answer or (case.strategy == "greedy" and differs):
        raise BenchError(f"{case.server} {case.strategy} {case.features} does not do the work: {answer}")


def rival(name: str, folder: Path, python: Path, where: Cores) -> Server:
    """One of them, started and not yet waited for, on what `ranking.save` left in the folder."""
    about, port = RIVALS[name], free_port(0)
    more = {FOLDER: str(folder), "BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    if python != Path(sys.executable):  # it does not find us by itself
        more["PYTHONPATH"] = str(Path(__file__).parents[2])
    return Server(
        about.title,
        [str(python), *(argument.format(port=port) for argument in about.command)],
        port=port,
        ready=about.ready,
        core=where.server,
        log=folder / f"{name}.log",
        environment=environment(folder, folder / "agerank.toml") | more,
    )


def installed(names: Sequence[str], python: Path) -> dict[str, str]:
    """Name -> version. Exits with 2 where one is unknown or not installed, or the interpreter cannot be run."""
    unknown = sorted(set(names) - set(RIVALS))
    if unknown:
        raise typer.BadParameter(f"no rival {', '.join(unknown)}; known are {', '.join(RIVALS)}", param_hint="--rivals")
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    found = {}
    for name in names:
        module = RIVALS[name].module
        try:
            asked = subprocess.run([python, "-c", code, module], capture_output=True, text=True, check=False)
        except OSError as error:
            text = f"{python} cannot be run: {error.strerror}"
            raise typer.BadParameter(text, param_hint="--rivals-python") from None
        if asked.returncode:
            typer.echo(
                f"agerank bench http needs {module}: pip install 'agerank[bench]', "
                f"name an interpreter that has it in --rivals-python, or leave {name} out of --rivals",
                err=True,
            )
            raise typer.Exit(2)
        found[name] = asked.stdout.strip()
    return found
