"""A package as somebody else would write it: one of everything that can be added to grokfast."""

from dataclasses import dataclass

import numpy as np
import torch

import grokfast as gf


@gf.task("majority")
@dataclass(frozen=True, kw_only=True)
class Majority(gf.Task):
    """What most of some signs are."""

    bits: int = 5

    def build(self):
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randint(0, 2, (48, self.bits), generator=generator).double() * 2 - 1
        y = (x.sum(1) > 0).long()
        return gf.TaskData(
            x_train=x[:32],
            y_train=y[:32],
            x_val=x[32:],
            y_val=y[32:],
            num_classes=2,
            targets=torch.eye(2, dtype=torch.float64),
        )


@gf.loss("huber", targets=True)
def huber(output, label, target):
    return torch.nn.functional.huber_loss(output, target)


@gf.optimizer("warm-sign")
class WarmSign(gf.UpdateRule):
    """The sign of an average gradient; the learning rate rises in the first steps."""

    slots = ("average",)

    def update(self, parameter, gradient, slots, lr, decay, step, settings):
        average = settings.beta1 * slots[0] + (1 - settings.beta1) * gradient
        lr = lr * (1 - settings.beta2**step)
        return parameter * (1 - lr * decay) - lr * torch.tanh(100 * average), (average,)


@gf.model("random-features")
@dataclass(frozen=True, kw_only=True)
class RandomFeatures(gf.Model):
    """A trained readout, normalised, of features that are drawn and kept."""

    features: int = 8

    def build(self, shape):
        return _Readout(shape, self.features)

    def shape_of(self, tensors):
        inputs, outputs = tensors["drawn"].shape[0], tensors["readout.weight"].shape[0]
        return gf.Shape(inputs=inputs, outputs=outputs)


class _Readout(torch.nn.Module):
    def __init__(self, shape, features):
        super().__init__()
        self.register_buffer("drawn", torch.randn(shape.inputs, features))
        self.norm = torch.nn.BatchNorm1d(features)
        self.offset = torch.nn.Parameter(torch.randn(features), requires_grad=False)
        self.readout = torch.nn.Linear(features, shape.outputs)

    def forward(self, x):
        return self.readout(self.norm(torch.relu(x @ self.drawn + self.offset)))


@gf.observable("largest", dims=("parameter",), label="largest weight of each tensor")
def largest(cells):
    return torch.stack([p.flatten(1).abs().amax(1) for p in cells.params.values()], 1)


@gf.phase_rule("halves")
@dataclass(frozen=True, kw_only=True)
class Halves(gf.Rule):
    phases = ("good", "bad")
    letters = ("G", "B")

    def classify(self, outcomes):
        code = np.where(outcomes.final_val_acc >= 0.5, 0, 1)
        return np.where(outcomes.finished, code, gf.phases.UNKNOWN).astype(np.int8)
