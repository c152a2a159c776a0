"""manifest.json: what a version is, and the hash of every file of it."""

import hashlib
from typing import Literal

import msgspec

from models.types import NoiseInput
from service.errors import CheckpointError

#: Of what a version is made of. It rises where what was written so far comes to mean something else: then no other
#: release may read it. A field that is only added, here or in what a manifest holds, has a default that says what its
#: absence meant, and needs no new format: see "Upgrades" in docs/operations.md.
FORMAT = 3


class ServedStrategy(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy as the scorer needs it: a ranking graph and what to feed it. The scorer knows no method by name."""

    method: str
    options: dict[str, object]  # of the method, all of them
    graph: str  # file name below graphs/
    noise: list[NoiseInput]
    lambda_: float
    budget: float | None  # target share of changed slots, None where lambda is given
    uniform_share: float | None  # see models.slate.choose
    propensity_samples: int


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What a delta version rests on: the version before it, be that a full one or a delta."""

    version: int
    digest: str
    full: int  # the full version at the bottom


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json. Everything in it is verified or reported, nothing executed."""

    format: int = FORMAT
    lane: str
    version: int  # optimiser steps taken
    created_at_ms: int
    data_timestamp_ms: int  # newest event that the weights contain; 0 before the first
    spec: str  # TOML
    spec_hash: str
    network: dict[str, object]  # NetworkConfig
    strategies: dict[str, ServedStrategy]
    positions: dict[str, str]  # stream -> last entry that the state contains
    metrics: dict[str, float]  # progressive, over the last window
    click_times_ms: list[int]  # of clicks learned since the version before (at most 1,000), for click_to_serving
    refused: str = ""  # why the guard kept it aside, "code: detail"; "" for a version that may serve
    base: Base | None = None  # of a delta version; None: a full one
    twin: str = ""  # digest of the delta version of the same number, as which a full one was published before
    bytes: int = 0  # of all files but this one; written by `seal`
    files: dict[str, str] = {}  # name -> sha256; written by `seal`
    digest: str = ""  # sha256 of this document as it is written, see `_digest`; written by `seal`

    @property
    def kind(self) -> Literal["full", "delta"]:
        return "delta" if self.base else "full"


def seal(manifest: Manifest, files: dict[str, bytes]) -> Manifest:
    """The manifest of these very files."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    size = sum(len(content) for content in files.values())
    manifest = msgspec.structs.replace(manifest, files=hashes, bytes=size)
    return msgspec.structs.replace(manifest, digest=_digest(msgspec.json.encode(manifest)))


def encode(manifest: Manifest) -> bytes:
    """As it is written: laid out for people."""
    return msgspec.json.format(msgspec.json.encode(manifest))


def decode(content: bytes, *, where: str) -> Manifest:
    """A manifest that is what `encode` wrote, be it that of another release: what this one does not know is left out.

    Raises CheckpointError: unreadable_manifest, unknown_format, hash_mismatch.
    """
    try:
        found = msgspec.json.decode(content, type=dict[str, object]).get("format")
        if found != FORMAT:
            raise CheckpointError("unknown_format", f"this build reads format {FORMAT}, {where} has {found}")
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CheckpointError("unreadable_manifest", f"{where}: {error}") from None
    if manifest.digest != _digest(content):
        raise CheckpointError("hash_mismatch", f"{where} is not what was written")
    return manifest


def _digest(document: bytes) -> str:
    """Hash of what a document says, in the order in which it says it, its own digest left empty.

    Not of how it is laid out; and not of what a release makes of it, for that may know more fields, or fewer.
    """
    found = msgspec.json.decode(document, type=dict[str, object])
    return hashlib.sha256(msgspec.json.encode({**found, "digest": ""})).hexdigest()
