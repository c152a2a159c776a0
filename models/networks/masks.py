"""Masks: the random input of methods that learn what the model is unsure of from dropout."""

from models.networks.click import ClickNetwork, Dropout
from models.types import NoiseInput, Scope


def mask_input(network: ClickNetwork, *, dropout: Dropout, draws: int, scope: Scope, rate: float) -> NoiseInput:
    """`draws` masks over the hidden units that `dropout` covers."""
    hidden = network.config.hidden
    width = sum(hidden) if dropout == "full" else hidden[-1]
    return NoiseInput(name="masks", distribution="dropout", scope=scope, draws=draws, width=width, rate=rate)
