"""Checkpoints: saved whole or not at all, verified before use."""

import msgspec

from models.types import NoiseInput


class ServedStrategy(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy as the scorer needs it: a ranking graph and what to feed it. The scorer knows no method by name."""

    method: str
    options: dict[str, object]  # of the method, for explain and audit
    graph: str  # file name below graphs/
    noise: list[NoiseInput]
    lambda_: float
    budget: float | None  # target share of changed slots, None where lambda is given
    uniform_share: float | None  # see models.slate.choose
    propensity_samples: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json: what a version is. Everything in it is verified or reported, nothing executed."""

    format: int
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
    files: dict[str, str]  # name -> sha256
