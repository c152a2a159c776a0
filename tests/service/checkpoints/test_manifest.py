"""The manifest over the releases: it may gain fields, and lose them again, and is still what was written."""

import json
from typing import Any

import msgspec
import pytest

from service.checkpoints import Manifest, ServedStrategy, manifest
from service.errors import CheckpointError

#: Of a release whose digest was that of the fields it knew.
WRITTEN = """{
"format": 3, "lane": "default", "version": 7, "created_at_ms": 1700000000000, "data_timestamp_ms": 1699999999000,
"spec": "[[fields]]", "spec_hash": "0123456789abcdef", "network": {"hidden": [256, 128, 64], "dropout": 0.01},
"strategies": {"age": {
  "method": "age", "options": {"steps": 3, "rate": 0.01, "gate": "learned", "max_impressions": null},
  "graph": "age.onnx", "noise": [
    {"name": "masks", "distribution": "dropout", "scope": "request", "draws": 1, "width": 448, "rate": 0.01}
  ], "lambda_": 12.5, "budget": 0.05, "uniform_share": null, "propensity_samples": 0
}},
"positions": {"agerank:{0}:served": "1-0"}, "metrics": {"log_loss": 0.25, "pcoc": 1.0, "rate": 0.00001},
"click_times_ms": [1, 2], "refused": "pcoc: 7 clicks predicted for each", "base": null, "twin": "", "bytes": 1,
"files": {"weights.safetensors": "50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326"},
"digest": "848d9cc38b11a491efab500a8739078ee3c66a2eed10cd7ca68e8b6d599e853f"
}"""

NextStrategy = msgspec.defstruct("NextStrategy", [("ceiling", float, 1.0)], bases=(ServedStrategy,), frozen=True)
Next = msgspec.defstruct("Next", [("host", str, "nobody")], bases=(Manifest,), frozen=True, kw_only=True)


def fields(one: msgspec.Struct, *others: str) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__ if name not in others}


@pytest.fixture
def draft(kit: Any) -> Any:
    """Of the next release, which knows a field more of the version, and one more of a strategy."""
    strategies = {"age": NextStrategy(**fields(kit.strategy("age")), ceiling=0.5)}
    return Next(**fields(kit.manifest(7, strategies=strategies)), host="somebody")


def test_what_was_written_before_is_read() -> None:
    assert manifest.decode(WRITTEN.encode(), where="here").strategies["age"].lambda_ == 12.5


def test_a_release_reads_what_the_one_before_wrote(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = manifest.seal(kit.manifest(7), {"weights.safetensors": b"w"})
    content = manifest.encode(written)
    monkeypatch.setattr(manifest, "Manifest", Next)
    found: Any = manifest.decode(content, where="here")
    assert (found.host, found.digest) == ("nobody", written.digest)


def test_a_release_reads_what_the_next_one_writes(kit: Any, draft: Any) -> None:
    written = manifest.seal(draft, {"weights.safetensors": b"w"})
    found = manifest.decode(manifest.encode(written), where="here")
    assert found == Manifest(**{**fields(written, "host"), "strategies": {"age": kit.strategy("age")}})


@pytest.mark.parametrize(("old", "new"), [('"somebody"', '"sombody"'), ('"host"', '"hest"'), ("0.5", "0.25")])
def test_a_field_that_is_not_known_is_held_to_the_digest_all_the_same(draft: Any, old: str, new: str) -> None:
    content = manifest.encode(manifest.seal(draft, {})).decode()
    assert content.count(old) == 1
    with pytest.raises(CheckpointError) as caught:
        manifest.decode(content.replace(old, new).encode(), where="here")
    assert caught.value.code == "hash_mismatch"


def test_the_layout_may_change(draft: Any) -> None:
    written = manifest.seal(draft, {})
    content = json.dumps(json.loads(manifest.encode(written)), indent=8)
    assert manifest.decode(content.encode(), where="here").digest == written.digest
