"""The public entry: canonical tensors in, trained in place."""

import torch
from torch import Tensor

from .adamw import bias_corrections
from .check import check, check_order
from .layout import HOPPER, Tiles, choose_tiles, make_layout, pack, pack_rows, unpack
from .spec import Spec, unsupported
from .train_steps import Cells, Data, Numbers, Packed, Records, Schedule, Thresholds, train_steps

# Steps a program trains a cell before it takes another. A toy cell should take 5 ms for 100 and
# its state 20 us to move in and out of a multiprocessor (not measured). 441 cells in ten rounds
# keep all of 132 programs at work for 98% of the time, in one for 84%.
STRETCH = 100


def train(
    *,
    sizes: tuple[int, ...],
    activation: str,
    loss: str,
    predict: str,
    params: list[Tensor],  # [embedding [M, P, E]]?, W0 [M, H1, I0], [b0 [M, H1]]?, W1, ...
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    lr: Tensor,  # float64 [G, M]
    weight_decay: Tensor,  # float64 [G, M]
    x_train: Tensor,  # [D, N, I0], or tokens int32 [D, N, K] with an embedding
    y_train: Tensor,  # int32 [D, N]
    x_val: Tensor,  # [D, V, I0] or int32 [D, V, K]
    y_val: Tensor,  # int32 [D, V]
    num_classes: int,
    data_index: Tensor,  # int32 [M]
    batch_size: int,
    need_train: int,
    need_val: int,
    need_train_more: Tensor,  # int64 [H], further thresholds; H may be 0
    need_val_more: Tensor,
    stop: bool,  # when T_train and T_val are both there
    step: Tensor,  # int64 [M], as the next three; -1 = never
    t_train: Tensor,
    t_val: Tensor,
    diverged_at: Tensor,
    train_crossings: Tensor,  # int64 [M, H]: the T of the further thresholds
    val_crossings: Tensor,
    epoch_correct: Tensor,  # int64 [M]
    epoch_loss: Tensor,  # float64 [M]
    train_correct: Tensor,  # int64 [M], as the next three: of the last evaluation; -1 = none yet
    val_correct: Tensor,
    best_train_correct: Tensor,  # of all evaluations
    best_val_correct: Tensor,
    cells: Tensor,  # int32 or int64 [..], distinct
    until: int,
    bias: bool = True,
    embedding: tuple[int, int] | None = None,  # (P, E)
    activate_embedding: bool = False,  # before the first linear layer
    targets: Tensor | None = None,  # [D, C, O], for mse or nearest
    optimizer: str = "adamw",
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    order: Tensor | None = None,  # int32 [R, E, N]
    order_index: Tensor | None = None,  # int32 [M]
    first_epoch: int = 0,  # order[:, 0] belongs to this epoch
    eval_steps: Tensor | None = None,  # sorted, where an epoch ends; None: the end of every epoch
    train_accuracy: str = "running",  # or "after": of the whole training set after the update
    curve_steps: Tensor | None = None,  # [T] sorted, each an evaluated step
    train_loss: Tensor | None = None,  # float32 [M, T], as the next three
    val_loss: Tensor | None = None,
    train_acc: Tensor | None = None,
    val_acc: Tensor | None = None,
    precision: str = "ieee",
    programs: int | None = None,  # default: as many as the GPU runs at once, by layout.TILES
    stretch: int = STRETCH,  # steps
    tiles: Tiles | None = None,  # default: layout.choose_tiles
    poison: bool = False,  # fill scratch memory with NaN first (tests)
) -> None:
    """Trains each listed cell, in place, from its own step to `until` or until it freezes.

    Tensors lie on one device, contiguous, in the canonical unpadded layout; all parameters have
    one dtype. An evaluation counts the correct predictions on the training set, as
    `train_accuracy` says, and on the validation set; the steps at which a threshold was reached,
    the counts and the two accuracies come from that. train_loss is the mean over the epoch's
    batches, each before its update. The result for a cell has the same bits whatever the other
    cells, their order, the number of programs and the chunks the steps come in.

    Raises ValueError with the reason for what `unsupported` refuses and for tensors that do not
    fit each other.
    """
    arguments = dict(locals())
    spec = Spec(
        sizes=tuple(sizes),
        activation=activation,
        loss=loss,
        predict=predict,
        num_train=y_train.shape[1],
        num_val=y_val.shape[1],
        batch_size=batch_size,
        num_classes=num_classes,
        bias=bias,
        embedding=tuple(embedding) if embedding else None,
        activate_embedding=activate_embedding,
        num_tokens=x_train.shape[2] if embedding else 0,
        optimizer=optimizer,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        dtype=str(params[0].dtype).removeprefix("torch."),
        precision=precision,
        every_step=eval_steps is None,
        train_accuracy=train_accuracy,
    )
    if reason := unsupported(spec):
        raise ValueError(reason)
    device = params[0].device
    if tiles is None:
        tiles = choose_tiles(spec, capability(device))
    layout = make_layout(spec, tiles)
    check(spec, arguments)

    nothing = torch.empty(0, device=device)  # a pointer for what is not asked for

    def fill(kind):
        given = (arguments[name] for name in kind._fields)
        return kind(*(nothing if tensor is None else tensor for tensor in given))

    cells = cells.to(device=device, dtype=torch.int64)
    frozen = diverged_at >= 0
    if stop:
        frozen |= (t_train >= 0) & (t_val >= 0)
    cells = cells[(~frozen & (step < until))[cells]]
    if not len(cells):
        return
    base = int(step[cells].min())
    if not spec.full_batch:
        check_order(spec, order, first_epoch, base, until)
    packed = Packed(*(pack(t, cells, layout) for t in (params, exp_avg, exp_avg_sq)))
    pitch = spec.num_tokens if embedding else layout.pitch[0]
    data = Data(
        x=pack_rows(x_train, x_val, pitch),
        y=torch.cat((y_train, y_val), dim=1),
        targets=nothing if targets is None else targets,
        index=torch.arange(spec.num_train + spec.num_val, device=device, dtype=torch.int32),
        order=nothing.int() if order is None else order,
        data_index=data_index,
        order_index=data_index if order_index is None else order_index,
    )
    schedule = Schedule(
        corrections=bias_corrections(base + 1, until, beta1, beta2).to(device),
        mark=evaluation_marks(spec, base, until, eval_steps, curve_steps).to(device),
    )
    if programs is None:
        programs = multiprocessors(device) * tiles.resident
    programs = min(programs, len(cells))
    numbers = Numbers(
        until=until,
        base=base,
        num_cells=len(step),
        need_train=need_train,
        need_val=need_val,
        stop=int(stop),
        num_thresholds=len(need_train_more),
        stretch=min(stretch, until - base) if len(cells) > programs else until - base,
        num_epochs=0 if order is None else order.shape[1],
        first_epoch=first_epoch,
        num_curves=0 if train_loss is None else train_loss.shape[1],
    )
    scratch = packed.p.new_empty(programs, layout.scratch)
    if poison:
        scratch.fill_(float("nan"))
    with torch.cuda.device_of(packed.p):  # Triton launches on the current device
        train_steps[(programs,)](
            torch.zeros(1, device=device, dtype=torch.int32),
            torch.zeros(len(cells), device=device, dtype=torch.int32),
            cells.int(),
            len(cells),
            packed,
            data,
            schedule,
            *(fill(kind) for kind in (Cells, Thresholds, Records)),
            scratch,
            *numbers,
            LAYOUT=layout,
            num_warps=layout.warps,
        )
    for values, tensors in zip(packed, (params, exp_avg, exp_avg_sq), strict=True):
        unpack(values, tensors, cells, layout)


def evaluation_marks(
    spec: Spec, base: int, until: int, eval_steps: Tensor | None, curve_steps: Tensor | None
) -> Tensor:
    """Schedule.mark for steps base + 1 .. until."""
    steps = torch.arange(base + 1, until + 1)
    due = steps % (spec.num_train // spec.batch_size) == 0
    if eval_steps is not None:
        due &= torch.isin(steps, eval_steps.cpu())
    mark = torch.where(due, -1, -2)
    if curve_steps is not None and len(curve_steps):
        curve_steps = curve_steps.cpu()
        number = torch.searchsorted(curve_steps, steps).clamp(max=len(curve_steps) - 1)
        mark = torch.where(due & (curve_steps[number] == steps), number, mark)
    return mark.int()


def capability(device: torch.device) -> int:
    """Compute capability, major; without a GPU that of the table of tiles."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else HOPPER


def multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1  # the interpreter runs programs one after the other
    return torch.cuda.get_device_properties(device).multi_processor_count
