import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from click.testing import Result
from pyarrow import parquet
from typer.testing import CliRunner

from models.registry import build
from scripts.cli import app
from scripts.world_fits import USER_COLUMNS, VIDEO_COLUMNS
from scripts.worlds import Learning, Life, load_fit, open_world, scale_of

DATA = Path(__file__).parents[2].parent / "shared/data"
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path) -> Invoke:
    return lambda source, data: CliRunner().invoke(
        app, ["world", source, "--data", str(data), "--out", str(tmp_path / "world.npz")]
    )


def arms(path: Path, *rows: tuple[str, int, int, bool]) -> Path:
    lines = [
        f"{number},{test},0,2,1,{shown},{clicks},{valid},x" for number, (test, shown, clicks, valid) in enumerate(rows)
    ]
    text = "item_id,test_id,arm,n_arms,week,impressions,clicks,valid,headline\n" + "\n".join(lines)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_rates_are_shrunk_towards_the_mean_the_more_the_fewer_were_seen(invoke: Invoke, tmp_path: Path) -> None:
    rows = [("a", 100_000, 4_000, True), ("a", 100_000, 1_000, True), ("b", 50, 2, True), ("b", 50, 1, False)]
    done = invoke("upworthy", arms(tmp_path / "arms.csv.gz", *rows))
    assert done.exit_code == 0, done.output
    fit = load_fit(tmp_path / "world.npz")
    rate = 1.0 / (1.0 + np.exp(-fit.item_effect))
    assert fit.item_group.tolist() == [0, 0, 1]
    np.testing.assert_allclose(rate[:2], [0.04, 0.01], rtol=0.05)
    middle = 1.0 / (1.0 + np.exp(-np.mean([np.log(4 / 96), np.log(1 / 99), np.log(2 / 48)])))
    assert middle < rate[2] < 0.04 * 0.98
    assert open_world(str(tmp_path / "world.npz"), 0).visits(5).visits.context_index.shape == (5, 0)


def test_a_world_is_known_by_what_its_file_holds(tmp_path: Path) -> None:
    lives = []
    for number, clicks in enumerate((40, 41, 40)):
        folder = tmp_path / str(number)
        folder.mkdir()
        data = arms(folder / "arms.csv.gz", ("a", 1_000, clicks, True), ("a", 1_000, 10, True))
        options = ["world", "upworthy", "--data", str(data), "--out", str(folder / "mine.npz")]
        assert CliRunner().invoke(app, options).exit_code == 0
        world = str(folder / "mine.npz")
        lives.append(Life(world, build("greedy", {}), 100, scale_of(world, Learning.STREAM)).settings)
    assert [one["world"] for one in lives] == ["mine.npz"] * 3
    assert lives[0] != lives[1]
    assert lives[0] == lives[2]
    named = Life("glm", build("greedy", {}), 100, scale_of("glm", Learning.STREAM)).settings
    assert "world_digest" not in named, "what was finished before worlds had digests stays so"


def kuairand(folder: Path, *, users: int = 20, videos: int = 30, shown: int = 3_000) -> Path:
    """A log in which the even videos are clicked and the odd ones are not."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    user, video = generator.integers(users, size=shown), generator.integers(videos, size=shown)
    click = (generator.random(shown) < np.where(video % 2, 0.2, 0.8)).astype(np.int64)
    of_users = {name: generator.integers(3, size=users) for name in USER_COLUMNS}
    of_videos = {name: generator.integers(3, size=videos) for name in VIDEO_COLUMNS}
    tables = {
        "impressions": {"user_id": user, "video_id": video, "is_click": click},
        "users": {"user_id": np.arange(users), **of_users},
        "videos": {"video_id": np.arange(videos), **of_videos},
    }
    for name, columns in tables.items():
        parquet.write_table(pyarrow.table(columns), folder / f"kuairand_{name}.parquet")
    return folder


def test_a_fit_knows_which_videos_are_clicked(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("kuairand", kuairand(tmp_path / "log"))
    assert done.exit_code == 0, done.output
    fit = load_fit(tmp_path / "world.npz")
    assert fit.user_codes.shape == (20, len(USER_COLUMNS))
    assert fit.item_codes.shape == (30, len(VIDEO_COLUMNS))
    p = 1.0 / (1.0 + np.exp(-(fit.item_effect + fit.user_effect[:, None] + fit.user_factor @ fit.item_factor.T)))
    even, odd = p[:, ::2].mean(axis=0), p[:, 1::2].mean(axis=0)
    assert even.mean() > 0.7
    assert odd.mean() < 0.3
    assert p.mean() == pytest.approx(0.5, abs=0.08)


def test_files_that_will_not_do_are_refused(invoke: Invoke, tmp_path: Path) -> None:
    nothing = arms(tmp_path / "arms.csv.gz", ("a", 10, 1, False))
    broken = kuairand(tmp_path / "log")
    (broken / "kuairand_users.parquet").write_bytes(b"PAR1 and no more")
    for source, data, message in (
        ("upworthy", nothing, "no valid arms"),
        ("upworthy", tmp_path / "none.csv.gz", "No such file"),
        ("kuairand", tmp_path / "nowhere", "No such file"),
        ("kuairand", broken, "arquet"),
    ):
        done = invoke(source, data)
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.replace("\u2502", " ").split())
        assert not (tmp_path / "world.npz").exists()


@pytest.mark.skipif(not DATA.exists(), reason="the logs are not beside the checkout")
def test_upworthy_is_a_world(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("upworthy", DATA / "upworthy_arms.csv.gz")
    assert done.exit_code == 0, done.output
    scene = open_world(str(tmp_path / "world.npz"), 1).visits(2_000)
    assert 0.005 < scene.p_click.mean() < 0.03
    assert 5 < len(scene.p_click) / 2_000 < 15
