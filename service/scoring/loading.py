"""A version from disk, verified before anybody sees it: hashes, spec, shapes, finite weights, a golden request."""

from collections.abc import Collection, Mapping

import numpy as np

from models.spec import FeatureSpec, SpecError
from models.types import Array, Batch, Scores
from service import checkpoints
from service.checkpoints import Manifest, Store
from service.errors import CheckpointError
from service.events import from_millis
from service.scoring import engines
from service.scoring.content import read
from service.scoring.decoding import RankDecoder
from service.scoring.engines import Engine
from service.scoring.engines.batching import Batcher
from service.scoring.items import ItemStore
from service.scoring.ranking import Loaded

#: Engines differ in the last bits; a wrong graph or a wrong weight differs by far more.
TOLERANCE = 1e-4


def load(
    store: Store,
    version: int,
    previous: Loaded | None = None,
    *,
    kind: engines.Kind,
    threads: int,
    lane: str,
    strategies: Collection[str],
    max_items: int,
    batcher: Batcher | None = None,
    fuse: bool = False,
) -> Loaded:
    """A version that may be served.

    Args:
        store: of the lane's checkpoints.
        previous: what served before, to take over from: the item store, too, and what a delta rests on.
        kind: of engine.
        threads: of the engine.
        lane: that the version must be of.
        strategies: that the version must have.
        max_items: that the item store takes.
        batcher, fuse: see `engines.load`.

    Raises:
        CheckpointError: those of `service.checkpoints` and of the engine, wrong_lane, missing_strategy, spec_mismatch,
            golden_mismatch, item_fields_changed, delta_mismatch.
    """
    manifest = checkpoints.load_manifest(store, version)
    spec = _check(manifest, lane, strategies)
    items = _items(previous, spec)
    content = read(store, manifest, previous.content if previous else None)
    engine = engines.load(
        kind,
        manifest=manifest,
        graphs=content.graphs,
        weights=content.params,
        threads=threads,
        batcher=batcher,
        fuse=fuse,
        previous=previous.engine if previous else None,
    )
    _check_golden(engine, manifest, checkpoints.load_golden(store, manifest))
    same = previous if previous and previous.encoder.spec == spec else None
    encoder = same.encoder if same else engines.encoder(kind, spec)
    return Loaded(
        content=content,
        encoder=encoder,
        decoder=same.decoder if same else RankDecoder(encoder.rows),
        engine=engine,
        items=ItemStore(encoder, max_items=max_items) if items is None else items,
    )


def _check(manifest: Manifest, lane: str, strategies: Collection[str]) -> FeatureSpec:
    if manifest.lane != lane:
        raise CheckpointError("wrong_lane", f"the version is of lane {manifest.lane}, this scorer serves {lane}")
    try:
        for time_ms in (manifest.created_at_ms, manifest.data_timestamp_ms):
            from_millis(time_ms)
    except (ValueError, OverflowError):  # every answer tells them, and none could: who writes to the log can date so
        raise CheckpointError("unreadable_manifest", "its times lie outside of the years 1 to 9999") from None
    missing = sorted(set(strategies) - set(manifest.strategies))
    if missing:
        raise CheckpointError("missing_strategy", f"configured here, unknown to the version: {', '.join(missing)}")
    try:
        spec = FeatureSpec.from_toml(manifest.spec)
    except SpecError as error:
        raise CheckpointError("spec_mismatch", f"the feature spec does not parse: {error}") from None
    if spec.hash != manifest.spec_hash:
        detail = f"the feature spec hashes to {spec.hash} here, to {manifest.spec_hash} where it was trained"
        raise CheckpointError("spec_mismatch", detail)
    return spec


def _items(previous: Loaded | None, spec: FeatureSpec) -> ItemStore | None:
    """The store to go on with; None where there is none, or an empty one of other fields."""
    if previous is None:
        return None
    if previous.items.fits(spec):
        return previous.items
    if not len(previous.items):
        return None
    # To encode all items anew takes long, and all scorers would do it at once, their candidates without features.
    detail = "the items in memory are encoded by other item fields: restart the scorers, one after the other"
    raise CheckpointError("item_fields_changed", detail)


def _check_golden(engine: Engine, manifest: Manifest, golden: Mapping[str, Array]) -> None:
    """The trainer's own answers to a request of its own must come out of this engine."""
    for name, served in manifest.strategies.items():
        given = {field: golden[f"{name}/in/{field}"] for field in (*Batch._fields, "impressions", "lambda")}
        noise = {one.name: golden[f"{name}/in/{one.name}"] for one in served.noise}
        batch = Batch(*(given[field] for field in Batch._fields))
        scores = engine.scores(name, batch, noise, float(given["lambda"]), given["impressions"])
        expected = Scores(*(golden[f"{name}/out/{field}"] for field in Scores._fields))
        # Where a candidate stands on the threshold itself, the last bit opens or shuts its gate.
        firm = np.abs(expected.p_click - expected.gate_threshold) > TOLERANCE
        for field, ours, theirs in zip(Scores._fields, scores, expected, strict=True):
            rows = firm if field in ("score", "gate_open") else slice(None)
            if not np.allclose(ours[rows], theirs[rows], rtol=TOLERANCE, atol=TOLERANCE):
                raise CheckpointError("golden_mismatch", f"strategy {name}: {field} of the golden request differs")
