"""What the Triton worker is asked to train, and the reason when it cannot."""

import itertools
import math
from dataclasses import dataclass

# What each field of a Spec may be. All else that unsupported() refuses is how fields go together.
SUPPORT: dict[str, tuple] = {
    "activation": ("tanh", "relu", "leaky_relu", "square"),
    "activate_embedding": (False, True),
    "bias": (False, True),
    "loss": ("cross_entropy", "mse"),
    "predict": ("argmax", "nearest"),
    "optimizer": ("adamw",),
    "dtype": ("float32", "float64"),
    "precision": ("ieee", "tf32x3", "tf32"),
    "train_accuracy": ("running", "after"),
}

MAX_LAYERS = 4
# The loss holds a whole row of outputs (and of classes, for `nearest`) in registers.
MAX_OUTPUTS = 256
# Offsets within a cell's storage and data set are int32; rows are padded to less than twice.
MAX_NUMBERS = 2**30


@dataclass(frozen=True)
class Spec:
    """The constant parts of a run: everything the kernel is compiled for."""

    sizes: tuple[int, ...]  # (I0, H1, ..., O)
    activation: str
    loss: str
    predict: str
    num_train: int  # N
    num_val: int  # V
    batch_size: int  # B, divides N
    num_classes: int  # C
    bias: bool = True  # of the linear layers
    embedding: tuple[int, int] | None = None  # (P, E), E == I0
    activate_embedding: bool = False  # the activation also precedes the first linear layer
    num_tokens: int = 0  # K tokens summed per sample, with an embedding
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    dtype: str = "float32"
    precision: str = "ieee"
    every_step: bool = True  # evaluate after every step (else on a schedule)
    train_accuracy: str = "running"  # of an epoch's batches before their updates, or of all after

    @property
    def num_layers(self) -> int:
        return len(self.sizes) - 1

    @property
    def parameters(self) -> dict[tuple[str, int], tuple[int, ...]]:
        """(kind, number) -> shape of each tensor of one cell, in the contract's order."""
        shapes = {("embedding", 0): self.embedding} if self.embedding else {}
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(self.sizes)):
            shapes["weight", layer] = (outputs, inputs)
            if self.bias:
                shapes["bias", layer] = (outputs,)
        return shapes

    @property
    def full_batch(self) -> bool:
        return self.batch_size == self.num_train

    @property
    def fused_validation(self) -> bool:
        """One forward pass serves the validation of step i and the training of step i + 1."""
        return self.full_batch and self.every_step


def unsupported(spec: Spec) -> str | None:
    """Why this worker cannot train `spec`, or None when it can."""
    for field, known in SUPPORT.items():
        if getattr(spec, field) not in known:
            listed = ", ".join(map(str, known))
            return f"{field} {getattr(spec, field)!r}: the triton engine knows {listed}"
    if spec.dtype == "float64" and spec.precision != "ieee":
        return f"precision {spec.precision!r} with float64: only ieee products exist"
    if not 1 <= spec.num_layers <= MAX_LAYERS:
        return f"{spec.num_layers} linear layers: the triton engine trains 1 to {MAX_LAYERS}"
    if min(spec.sizes) < 1:
        return f"sizes {spec.sizes}: every width must be at least 1"
    if max(spec.sizes[-1], spec.num_classes) > MAX_OUTPUTS:
        return (
            f"{spec.sizes[-1]} outputs, {spec.num_classes} classes: the triton engine keeps a row "
            f"of them in registers, at most {MAX_OUTPUTS}"
        )
    if spec.embedding is not None and spec.embedding[1] != spec.sizes[0]:
        return f"embedding {spec.embedding} does not feed an input of width {spec.sizes[0]}"
    if spec.activate_embedding and spec.embedding is None:
        return "activate_embedding True: there is no embedding"
    if min(spec.num_train, spec.num_val, spec.batch_size) < 1:
        return "the triton engine needs training samples, validation samples and a batch"
    samples = (spec.num_train + spec.num_val) * max(spec.sizes)
    weights = sum(math.prod(shape) for shape in spec.parameters.values())
    if max(samples, weights) > MAX_NUMBERS:
        return (
            f"{samples} numbers for the samples of one layer, {weights} parameters: the triton "
            f"engine reaches at most {MAX_NUMBERS}"
        )
    if spec.num_train % spec.batch_size:
        return f"batch size {spec.batch_size} does not divide {spec.num_train} samples"
    if spec.train_accuracy == "after" and not spec.full_batch:
        return (
            f"train_accuracy 'after' with batches of {spec.batch_size} of {spec.num_train} samples:"
            " the triton engine counts it with full batches only"
        )
    if spec.eps <= 0:
        # Zero padding stays zero only because AdamW computes 0 / (0 + eps) there.
        return f"eps {spec.eps}: must be positive"
    return None
