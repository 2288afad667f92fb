"""Models: what is trained. ``mlp`` here; a user's own registers itself."""

from grokfast.models.base import MODELS, Model, Shape, model
from grokfast.models.mlp import Mlp

__all__ = ["MODELS", "Mlp", "Model", "Shape", "model"]
