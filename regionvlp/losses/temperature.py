"""What similarities are divided by before they enter a softmax."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from regionvlp.errors import InputError

LEAST = 1e-4  # below it cosines divided by it leave no room in a float32 softmax
Temperature = Annotated[float, Field(ge=LEAST, allow_inf_nan=False)]


def check_temperature(value: float) -> None:
    """Refuses what would make a loss NaN, or turn it round.

    Raises:
        InputError: ``value`` is below 0.0001, infinite or no number.
    """
    if not LEAST <= value < float("inf"):
        raise InputError(f"a temperature of {value:g}", f"give a number of at least {LEAST:g}; 0.05 is usual")
