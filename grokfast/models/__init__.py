"""Models: what is trained. ``mlp`` and ``transformer`` here; a user's own registers itself."""

from grokfast.models.base import MODELS, Model, Shape, model
from grokfast.models.mlp import Mlp
from grokfast.models.transformer import Transformer

__all__ = ["MODELS", "Mlp", "Model", "Shape", "Transformer", "model"]
