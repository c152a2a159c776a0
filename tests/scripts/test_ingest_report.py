"""The report: windows by local day, figures as the metrics say."""

from datetime import UTC, date
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from models import metrics
from scripts.ingest_report import Report, table
from service.training.outcome import Predictions

HOUR_MS = 3_600_000
MAY_FIRST_MS = 1_651_363_200_000  # 2022-05-01T00:00Z


def predictions(hours: list[float], p: list[float], label: list[float]) -> Predictions:
    time_ms = np.array([MAY_FIRST_MS + int(hour * HOUR_MS) for hour in hours], dtype=np.int64)
    return Predictions(time_ms, *(np.array(one, dtype=np.float32) for one in (p, label, [1.0] * len(p))))


def test_a_row_for_all_and_one_for_each_day() -> None:
    report = Report(UTC)
    report.add([predictions([-1, -0.5, 0], [0.5, 0.25, 0.5], [1, 0, 1]), predictions([23.9, 24], [0.25, 0.5], [0, 0])])
    rows = report.rows()
    assert [(row["window"], row["examples"]) for row in rows] == [
        ("all", 5),
        ("2022-04-30", 2),
        ("2022-05-01", 2),
        ("2022-05-02", 1),
    ]
    p, label = np.array([0.5, 0.25], dtype=np.float32), np.array([1, 0], dtype=np.float32)
    day = {"auc": metrics.auc(p, label), "log_loss": metrics.log_loss(p, label), "pcoc": metrics.pcoc(p, label)}
    assert rows[1] == {"window": "2022-04-30", "examples": 2, **day}
    assert rows[0]["pcoc"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("UTC", ["2022-04-30", "2022-05-01"]),
        ("Asia/Shanghai", ["2022-05-01"]),  # 8 hours ahead
        ("Asia/Kathmandu", ["2022-04-30", "2022-05-01"]),  # 5 hours and 45 minutes ahead
        ("America/New_York", ["2022-04-30"]),
    ],
)
def test_days_are_those_of_the_zone(zone: str, days: list[str]) -> None:
    report = Report(ZoneInfo(zone))
    report.add([predictions([-6, 2], [0.5, 0.5], [1, 0])])
    assert [row["window"] for row in report.rows()[1:]] == days


def test_everything_from_a_day_on_is_a_window_of_its_own() -> None:
    report = Report(ZoneInfo("Asia/Shanghai"), since=date(2022, 5, 1))
    report.add([predictions([-8.1, -7.9, 40], [0.5, 0.5, 0.5], [1, 0, 1])])
    assert [(row["window"], row["examples"]) for row in report.rows()[:2]] == [("all", 3), ("from 2022-05-01", 2)]


def test_without_examples_there_is_nothing_to_measure() -> None:
    (row,) = Report(UTC).rows()
    assert (row["window"], row["examples"]) == ("all", 0)
    assert np.isnan([row["auc"], row["log_loss"], row["pcoc"]]).all()
    assert [[*column.cells] for column in table([row]).columns] == [["all"], ["0"], ["-"], ["-"], ["-"]]
