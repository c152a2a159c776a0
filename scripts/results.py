"""The tables of docs and README that show the results kept in docs/results.

`python -m scripts.results` prints each under the name of the file that it stands in; a test holds the file to it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.report_summary import Cells, Summary, cells, difference, markdown
from scripts.report_tables import TABLES

RESULTS = Path(__file__).parents[1] / "docs" / "results"

#: Of Table 1, what stands in the README.
BRIEF = (
    "epsilon-greedy",
    "GP-TS",
    "gradient-TS",
    "UR-gradient-UCB",
    "AGE-TS",
    "AGE-UCB",
    "item-Laplace (ours)",
    "item-posterior (ours)",
)

#: What `agerank report --json` printed.
Document = dict[str, Any]


def reports(folder: Path = RESULTS) -> dict[str, Document]:
    """Name of the file -> what is in it; the tuning's trials are no report."""
    paths = sorted(path for path in folder.glob("*.json") if path.stem != "tuning")
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def tables(kept: Mapping[str, Document]) -> Iterator[tuple[str, str, str]]:
    """(name, path of the document below the root, the table in it) of all."""
    for name, document in kept.items():
        yield name, "docs/experiments.md", markdown(*cells(TABLES[document["report"]], document["rows"]))
    yield "methods", "docs/algorithms.md", markdown(*methods([kept["table1"], kept["guideboot"]]))
    yield "brief", "README.md", markdown(*brief(kept["table1"]))


def methods(documents: Sequence[Document]) -> Cells:
    """Gain and time of every strategy in several reports; its label makes it the same."""
    head, lines = ["method"], {row["label"]: [_named(row)] for one in documents for row in one["rows"]}
    for one in documents:
        head += [f"`{one['report']}` in `{one['world']}`: against {TABLES[one['report']].reference}", "seconds"]
        found = {row["label"]: [difference(row["against_reference"]), f"{row['seconds']:.0f}"] for row in one["rows"]}
        for label, line in lines.items():
            line += found.get(label, ["-", "-"])
    return head, list(lines.values())


def brief(document: Document) -> Cells:
    """Some rows with what matters most, the best last."""
    reference = TABLES[document["report"]].reference
    head = ["method", f"clicks against {reference}", "in the paper, on R6B", "slots changed"]
    rows = sorted(
        (row for row in document["rows"] if row["label"] in BRIEF), key=lambda row: row["against_reference"]["mean"]
    )
    return head, [
        [
            _named(row),
            difference(row["against_reference"]),
            "-" if row["paper"] is None else f"{row['paper_against_reference']:+.1%}",
            f"{row['changed']:.1%}",
        ]
        for row in rows
    ]


def _named(row: Summary) -> str:
    return f"`{row['strategy']['method']}`: {row['label']}"


if __name__ == "__main__":
    for _, path, table in tables(reports()):
        print(f"{path}\n\n{table}\n")
