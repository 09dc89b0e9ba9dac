"""Input scales: how pixels 0–255 become what a net was trained on."""

import math
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxdefend import InputError

# Pixels as they are; 0–1; −1…1. Any other is "mean,…/std,…": one number, or one per channel.
NamedScale = Literal["raw", "unit", "symmetric"]
NAMED: tuple[NamedScale, ...] = get_args(NamedScale)
MEANINGS = {"raw": "0–255", "unit": "0–1", "symmetric": "−1…1"}

EXPECTED = "raw (0–255), unit (0–1), symmetric (−1…1) or mean,…/std,…"


def check_scale(scale: str, channels: int | None = None) -> str:
    """The scale as it was given.

    "mean,…/std,…" is (pixels − mean) / std. Where no number is above 1, they are meant for pixels divided by 255, as
    ImageNet's "0.485,0.456,0.406/0.229,0.224,0.225" are.

    Args:
        channels: how many the images have; None: any number fits.
    Raises: InputError if it is none of these, or names another number of channels.
    """
    if scale in NAMED:
        return scale
    means, deviations = _parsed(scale)
    for numbers in (means, deviations):
        if channels is not None and len(numbers) not in (1, channels):
            raise InputError(
                f"input scale {scale[:80]}: {len(numbers)} numbers, expected 1 or {channels}, one per channel"
            )
    return scale


def scaled(pixels: Num[Array | np.ndarray, "n h w c"], scale: str | None) -> Float[Array, "n h w c"]:
    """Pixels 0–255 of any type as the float32 input that a net of this scale expects."""
    if scale is None:
        raise InputError(f"the net's input scale is not known: choose {EXPECTED}")
    images = jnp.asarray(pixels, jnp.float32)
    match scale:
        case "raw":
            return images
        case "unit":
            return images / 255
        case "symmetric":
            return images / 127.5 - 1
    means, deviations = _parsed(scale)
    if max(map(abs, (*means, *deviations))) <= 1:
        images = images / 255
    return (images - jnp.asarray(means, jnp.float32)) / jnp.asarray(deviations, jnp.float32)


def _parsed(scale: str) -> tuple[list[float], list[float]]:
    try:
        means, deviations = ([float(number) for number in part.split(",")] for part in scale[:1000].split("/"))
    except (ValueError, AttributeError, TypeError):
        raise InputError(f"input scale {str(scale)[:80]!r}: expected {EXPECTED}") from None
    if not (all(map(math.isfinite, means)) and all(number > 0 and math.isfinite(number) for number in deviations)):
        raise InputError(f"input scale {scale[:80]!r}: expected finite means, and standard deviations above 0")
    return means, deviations
