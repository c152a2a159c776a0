"""agerank world: a semi-real world from a real log, as a file for `agerank report` and `agerank tune`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pyarrow import ArrowInvalid

from scripts.outputs import to_write
from scripts.world_fits import FitError, kuairand, upworthy
from scripts.worlds import save_fit


class Source(StrEnum):
    """Logs that it can fit."""

    KUAIRAND = "kuairand"
    UPWORTHY = "upworthy"


def world(
    source: Annotated[Source, typer.Argument(help="Which log.")],
    data: Annotated[Path, typer.Option(help="Its folder (kuairand), or its file of arms (upworthy).")],
    out: Annotated[Path, typer.Option(callback=to_write, help="The file to write, such as kuairand.npz.")],
) -> None:
    """Fit click probabilities on a real log and write them as a world.

    Who would click what is then real as far as the fit goes; who comes, what is in the pool and when is simulated.

    kuairand: users' features, videos and a low-rank taste from 228,329 impressions of KuaiRand-Pure.
    upworthy: the click rates of the arms of Upworthy's headline tests, shrunk by what chance explains.

        agerank world upworthy --data upworthy_arms.csv.gz --out upworthy.npz
        agerank report table1 --world upworthy.npz
    """
    try:
        fit = upworthy(data) if source is Source.UPWORTHY else kuairand(data)
    except FileNotFoundError as error:  # of pyarrow, too, whose text is the path alone
        raise typer.BadParameter(f"{error.filename or error}: No such file or directory", param_hint="--data") from None
    except (FitError, OSError, KeyError, ArrowInvalid) as error:
        raise typer.BadParameter(f"{data}: {error}", param_hint="--data") from None
    save_fit(fit, out)
    rates = 1.0 / (1.0 + np.exp(-fit.item_effect))
    typer.echo(
        f"{out}: {len(fit.item_effect)} items, {len(fit.user_share)} users, "
        f"click rates of items {rates.min():.2%} to {rates.max():.2%}"
    )
