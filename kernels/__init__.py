"""Triton workers: one program trains one model for many steps. Knows nothing of grokfast."""

from .launch import train
from .layout import Tiles
from .spec import SUPPORT, Spec, unsupported

__all__ = ["SUPPORT", "Spec", "Tiles", "train", "unsupported"]
