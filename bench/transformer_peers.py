"""The transformer of the reproduction as a user would train it: ``nn.TransformerEncoder``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grokfast.bench import Contender, Unavailable
from grokfast.bench.trials import EagerLoop
from grokfast.bucket import Bucket
from grokfast.models import Transformer
from grokfast.models.decoder import Decoder


def check_is_the_reproduction(bucket: Bucket) -> Transformer:
    """Refuses any other network than post-norm, with biases, tied, positions in the table."""
    model = bucket.cell.model
    if not isinstance(model, Transformer):
        raise Unavailable("written for transformers only")
    fields = model.norm, model.bias, model.tied, model.positions, model.activation, model.dropout
    if fields != ("post", True, True, "learned-rows", "relu", 0.0):
        raise Unavailable("written for the network of power-division and power-s5 only")
    if bucket.cell.loss != "cross_entropy" or bucket.cell.predict != "argmax":
        raise Unavailable("written for cross-entropy and argmax only")
    return model


class EncoderNet(nn.Module):
    """The reproduction's ``net.py``: an embedding and an ``nn.TransformerEncoder``, here with the
    parameters of ours."""

    def __init__(self, net: Decoder, model: Transformer) -> None:
        super().__init__()
        self.embedding, self.vocabulary = net.embedding, net.vocabulary
        layer = nn.TransformerEncoderLayer(
            model.width, model.heads, model.feedforward, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, model.depth)
        for name, p in net.layers.named_parameters():
            path, _, leaf = name.rpartition(".")
            setattr(self.encoder.layers.get_submodule(path), leaf, p)
        later = torch.ones(net.length, net.length, dtype=torch.bool).triu(1)
        self.register_buffer("later", later, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        table = self.embedding.weight
        h = self.embedding(x) + table[self.vocabulary :]
        h = self.encoder(h, mask=self.later)
        return h[:, -1] @ table[: self.vocabulary].T


class EncoderLoop(EagerLoop):
    """That network, autograd and ``torch.optim.AdamW``, one model at a time."""

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        model = check_is_the_reproduction(bucket)
        super().__init__(bucket, device)
        assert isinstance(self.model, Decoder)
        self.model = EncoderNet(self.model, model).to(device)


TRANSFORMER_PEERS: dict[str, Contender] = {"nn.TransformerEncoder": EncoderLoop}
