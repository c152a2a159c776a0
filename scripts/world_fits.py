"""Click probabilities fitted on real logs, for semi-real worlds (`models.evaluation.worlds.fitted`)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import torch
from torch import Tensor
from torch.nn import functional

from models.evaluation.worlds.fitted import Fit
from models.types import Array
from scripts.upworthy_arms import read_arms

#: Of KuaiRand: columns that the models may know. Ids of users are left out: most come back too seldom.
USER_COLUMNS = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
VIDEO_COLUMNS = ("author_id", "tag", "upload_type", "video_type", "music_type")

RANK = 8
EPOCHS, BATCH, RATE, DECAY = 4, 512, 0.01, 0.02
FEWEST = 10  # impressions of a video that becomes an item


class FitError(ValueError):
    """The files are not what they should be."""


def upworthy(path: Path) -> Fit:
    """The arms of Upworthy's randomised headline tests, `upworthy_arms.csv.gz`: rates, and nobody is known.

    An arm's log odds are shrunk towards those of all arms by as much of their spread as chance explains.
    """
    try:
        arms = [one for one in read_arms(path) if one.valid and one.clicks > 0]
    except ValueError as error:
        raise FitError(str(error)) from None
    if not arms:
        raise FitError(f"{path} has no valid arms")
    tests = {name: number for number, name in enumerate(dict.fromkeys(one.test_id for one in arms))}
    arms.sort(key=lambda one: tests[one.test_id])
    shown = np.array([one.impressions for one in arms], dtype=np.float64)
    clicks = np.array([one.clicks for one in arms], dtype=np.float64)
    effect = np.log(clicks / (shown - clicks))
    chance = 1.0 / clicks + 1.0 / (shown - clicks)  # variance of the log odds
    spread = max(float(effect.var() - chance.mean()), 1e-6)
    shrunk = effect.mean() + (effect - effect.mean()) * spread / (spread + chance)
    return Fit(
        user_share=np.ones(1),
        user_effect=np.zeros(1),
        user_factor=np.zeros((1, 1)),
        user_codes=np.zeros((1, 0), dtype=np.int64),
        item_effect=shrunk,
        item_factor=np.zeros((len(arms), 1)),
        item_codes=np.zeros((len(arms), 0), dtype=np.int64),
        item_group=np.array([tests[one.test_id] for one in arms]),
        pool=np.array(10),
        visits_per_item=np.array(300.0),
    )


def kuairand(folder: Path, *, seed: int = 0) -> Fit:
    """A low-rank logistic model of KuaiRand's clicks: what users' features, videos and videos' features explain."""
    impressions = parquet.read_table(
        folder / "kuairand_impressions.parquet", columns=["user_id", "video_id", "is_click"]
    ).to_pydict()
    users = _rows(folder / "kuairand_users.parquet", "user_id", USER_COLUMNS, impressions["user_id"])
    videos = _rows(folder / "kuairand_videos.parquet", "video_id", VIDEO_COLUMNS, impressions["video_id"])
    user, video = users.place(impressions["user_id"]), videos.place(impressions["video_id"])
    click = np.array(impressions["is_click"], dtype=np.float32)
    factors = _factorise(users.codes, videos.codes, user, video, click, torch.Generator().manual_seed(seed))
    user_effect, user_factor, item_effect, item_factor = factors
    known = np.flatnonzero(np.bincount(video, minlength=len(videos.codes)) >= FEWEST)
    share = np.bincount(user, minlength=len(users.codes)).astype(np.float64)
    return Fit(
        user_share=share / share.sum(),
        user_effect=user_effect,
        user_factor=user_factor,
        user_codes=users.codes,
        item_effect=item_effect[known],
        item_factor=item_factor[known],
        item_codes=videos.codes[known],
        item_group=np.arange(len(known)),
        pool=np.array(40),
        visits_per_item=np.array(500.0),
    )


class _Rows:
    """Users or videos of the log, their columns as small whole numbers."""

    def __init__(self, ids: Sequence[int], codes: Array) -> None:
        self.codes = codes  # (rows, columns) int64
        self._number = {one: number for number, one in enumerate(ids)}

    def place(self, ids: Sequence[int]) -> Array:
        """(len(ids),) int64."""
        return np.array([self._number[one] for one in ids])


def _rows(path: Path, key: str, columns: Sequence[str], used: Sequence[int]) -> _Rows:
    table: Mapping[str, list[object]] = parquet.read_table(path, columns=[key, *columns]).to_pydict()
    wanted = set(used)
    kept = [number for number, one in enumerate(table[key]) if one in wanted]
    ids = [int(str(table[key][number])) for number in kept]
    if missing := wanted - set(ids):
        raise FitError(f"{path} lacks {len(missing)} of the log's {key}, among them {min(missing)}")
    codes = [_codes([str(table[name][number]) for number in kept]) for name in columns]
    return _Rows(ids, np.stack(codes, axis=1))


def _codes(values: Sequence[str]) -> Array:
    return np.unique(np.array(values), return_inverse=True)[1].astype(np.int64)


def _factorise(
    user_codes: Array, video_codes: Array, user: Array, video: Array, click: Array, generator: torch.Generator
) -> tuple[Array, Array, Array, Array]:
    """(effect, factor) of users and of videos, float64.

    A user is the sum of what its columns' values add; a video has a share of its own beside that.
    """
    own = np.arange(len(video_codes))[:, None]
    sides = [_Side(user_codes, generator), _Side(np.concatenate([video_codes, own], axis=1), generator)]
    base = torch.full((), math.log(click.mean() / (1.0 - click.mean())), requires_grad=True)
    adam = torch.optim.AdamW([base, *(side.table for side in sides)], lr=RATE, weight_decay=DECAY)
    place, label = (torch.from_numpy(user), torch.from_numpy(video)), torch.from_numpy(click)
    for _ in range(EPOCHS):
        order = torch.randperm(len(click), generator=generator)
        for rows in torch.split(order, BATCH):
            left, right = (side.of(of[rows]) for side, of in zip(sides, place, strict=True))
            loss = functional.binary_cross_entropy_with_logits(base + _logit(left, right), label[rows])
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    with torch.no_grad():
        of_users, of_videos = (side.of(torch.arange(side.count)).double().numpy() for side in sides)
    return of_users[:, 0], of_users[:, 1:], of_videos[:, 0] + base.item(), of_videos[:, 1:]


class _Side:
    """A table of values' effects and factors, columns after each other."""

    def __init__(self, codes: Array, generator: torch.Generator) -> None:
        sizes = codes.max(axis=0) + 1
        self.count = len(codes)
        self._rows = torch.from_numpy(codes + np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        table = torch.randn(int(sizes.sum()), 1 + RANK, generator=generator) * 0.1
        table[:, 0] = 0.0
        self.table = table.requires_grad_()

    def of(self, rows: Tensor) -> Tensor:
        """(len(rows), 1 + rank): effect and factor."""
        return self.table[self._rows[rows]].sum(1)


def _logit(left: Tensor, right: Tensor) -> Tensor:
    return left[:, 0] + right[:, 0] + (left[:, 1:] * right[:, 1:]).sum(1)
