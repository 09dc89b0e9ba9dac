"""Layers that do something in training only: nothing, when the net answers."""

from jaxdefend.nets.kinds.base import Kind, settings


@settings
class Idle(Kind):
    """Works in training only, by noise or by a penalty."""


@settings
class Dropout(Idle):
    rate: float = 0.5


@settings
class AlphaDropout(Idle):
    rate: float = 0.5


@settings
class SpatialDropout2D(Idle):
    rate: float = 0.5


@settings
class GaussianDropout(Idle):
    rate: float = 0.5


@settings
class GaussianNoise(Idle):
    stddev: float = 1.0


@settings
class ActivityRegularization(Idle):
    l1: float = 0.0
    l2: float = 0.0
