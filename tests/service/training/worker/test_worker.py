"""The worker against a real server: it drains the log, publishes as it goes, and tells what it does."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from service import checkpoints
from service.appends import append_batch
from service.checkpoints import LocalStore
from service.errors import CheckpointError
from service.events import decode_announcement, decode_dead_letter
from service.streams import StreamNames
from service.training.guard import Bounds

Start = Callable[..., Any]
NOTHING_PASSES = Bounds(1_000, 1, 0.0, math.inf, 0.0)


def test_a_burst_reads_the_log_to_its_end_and_publishes(world, running, names: StreamNames, bits) -> None:
    logged = world.traffic(300)
    append_batch(running.client, world.batch(logged, names))
    progress = running.burst()
    expected = world.trainer()
    outcome = expected.feed(world.entries(logged, names))
    assert progress.steps == expected.learner.step > 20
    version = checkpoints.current(LocalStore(running.root))
    manifest = checkpoints.load_manifest(LocalStore(running.root), version)
    assert bits(checkpoints.load_weights(LocalStore(running.root), manifest)) == bits(expected.weights())
    assert manifest.positions == expected.positions
    assert manifest.metrics == pytest.approx(progress.metrics())

    announced = [decode_announcement(payload) for payload in running.payloads(names.models)]
    assert [(one.lane, one.version) for one in announced] == [("default", 0), ("default", version)]
    letters = [decode_dead_letter(payload) for payload in running.payloads(names.dead)]
    assert letters == outcome.dead_letters
    assert {letter.code for letter in letters} == {"unreadable_entry", "unknown_request"}


def test_a_clock_that_is_set_back_holds_up_no_version(world, running, names, wait_until) -> None:
    with running.in_thread():
        append_batch(running.client, world.batch(world.traffic(200), names))
        wait_until(lambda: running.trainer.learner.step > 3, "a step")
        assert checkpoints.current(LocalStore(running.root)) == 0
        running.set_back_s = 86_400.0
        wait_until(lambda: checkpoints.current(LocalStore(running.root)), "a version")


def test_the_sums_of_a_run_keep_nothing_that_grows(world, running, names: StreamNames) -> None:
    append_batch(running.client, world.batch(world.traffic(200), names))
    progress = running.burst()
    assert progress.clicks > 0
    assert progress.click_times_ms == []


def test_weights_that_are_not_finite_are_not_published_and_said(world, running, names: StreamNames) -> None:
    running.worker.run(burst=True)
    running.trainer.learner.params["mlp.0.item"].data.fill_(float("nan"))
    append_batch(running.client, world.batch(world.traffic(200), names))
    with pytest.raises(CheckpointError, match="training diverged"):
        running.burst()
    assert running.sample("agerank_publishes_total", result="failed") == 1
    assert checkpoints.versions(LocalStore(running.root)) == [0]


def test_what_it_did_can_be_seen(world, running, names: StreamNames) -> None:
    logged = world.traffic(200)
    append_batch(running.client, world.batch(logged, names))
    progress = running.burst()
    for stream in names.inputs:
        count = sum(entry[0] == stream for entry in world.batch(logged, names))
        assert running.sample("agerank_stream_entries_total", stream=stream) == count
        assert running.sample("agerank_stream_lag_entries", stream=stream) == 0
    outcome = world.trainer().feed(world.entries(logged, names))
    for result, count in outcome.join.items():
        assert running.sample("agerank_join_total", result=result) == count
    assert outcome.join.keys() == {"matched", "duplicate", "late", "ignored", "unknown_request"}
    sums = outcome.slices["age_ts", "new"]
    labels = {"lane": "default", "strategy": "age_ts", "item_age": "new"}
    assert running.sample("agerank_impressions_total", **labels) == sums.impressions > 0
    assert running.sample("agerank_clicks_total", **labels) == sums.clicks > 0
    assert running.sample("agerank_predicted_clicks_total", **labels) == pytest.approx(sums.predicted_clicks)
    assert running.sample("agerank_score_sum_total", **labels) == pytest.approx(sums.score)
    assert running.sample("agerank_examples_total") == progress.examples
    assert running.sample("agerank_steps_total") == progress.steps
    assert running.sample("agerank_loss") > 0
    assert running.sample("agerank_join_pending") == running.trainer.joins.pending
    assert running.sample("agerank_publishes_total", result="published") == 1
    assert running.sample("agerank_publish_seconds_count", kind="full") == 1
    assert running.sample("agerank_published_version") == progress.steps
    assert running.sample("agerank_trainer_log_up") == 1
    seen = [len(one.p) for outcome in running.outcomes for one in outcome.predictions]
    assert sum(seen) == progress.examples
    append_batch(running.client, [(names.inputs[1], b"", f"{(int(time.time()) + 10**6) * 1000}-0")])
    running.burst()
    assert running.sample("agerank_stream_redated_total", stream=names.inputs[1]) == 1


def test_it_publishes_as_it_goes(
    world, start: Start, tmp_path: Path, client: redis.Redis, names: StreamNames, wait_until
) -> None:
    running = start(tmp_path, client, names, interval_s=0.05)
    logged = world.traffic(400)
    batch = world.batch(logged, names)
    with running.in_thread():
        for part in (batch[:500], batch[500:800], batch[800:]):
            before = running.sample("agerank_publishes_total", result="published") or 0
            append_batch(client, part)
            wait_until(
                lambda before=before: (running.sample("agerank_publishes_total", result="published") or 0) > before,
                "a version",
            )
    assert len(checkpoints.versions(LocalStore(tmp_path))) == 3
    assert checkpoints.current(LocalStore(tmp_path)) == running.trainer.learner.step


def test_a_restart_from_a_refused_version_calls_it_published_to_nobody(
    world, start: Start, tmp_path: Path, client: redis.Redis, names: StreamNames
) -> None:
    append_batch(client, world.batch(world.traffic(300), names))
    for _ in range(2):
        running = start(tmp_path, client, names, bounds=NOTHING_PASSES)
        running.burst()
    assert running.trainer.learner.step in checkpoints.versions(LocalStore(tmp_path), refused=True)
    assert {decode_announcement(payload).version for payload in running.payloads(names.models)} == {0}
    assert running.sample("agerank_published_version") == 0


def test_a_stop_writes_in_full_what_the_guard_refused_as_a_delta(
    world, start: Start, tmp_path: Path, client: redis.Redis, names: StreamNames, wait_until
) -> None:
    running = start(tmp_path, client, names, interval_s=0.05, bounds=NOTHING_PASSES, full_every=9)
    append_batch(client, world.batch(world.traffic(200), names))
    with running.in_thread():
        wait_until(lambda: running.sample("agerank_publishes_total", result="refused"), "a refusal")
        assert checkpoints.versions(LocalStore(tmp_path), refused=True) == []
    step = running.trainer.learner.step
    assert checkpoints.versions(LocalStore(tmp_path), refused=True) == [step]
    again = start(tmp_path, client, names, full_every=9)
    again.burst()
    assert (again.trainer.learner.step, again.sample("agerank_steps_total")) == (step, 0)
