"""The commands: signatures and docstrings are the interface and the help; the work is elsewhere.

Every value arrives as the text typed (see :mod:`grokfast.cli.preflight`). Imports are inside, so
that ``--help`` and a usage error wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from grokfast.cli.signatures import Joined

Text = Annotated[str | None, "TEXT"]
File = Annotated[str | None, "FILE"]
Folder = Annotated[str | None, "DIR"]
Values = Annotated[str | None, "VALUES"]
Number = Annotated[str | None, "N"]


def run(
    preset: Annotated[str, "PRESET"],
    *,
    out: File = None,
    lr: Values = None,
    weight_decay: Values = None,
    steps: Values = None,
    data_seed: Values = None,
    model_seed: Values = None,
    activation: Values = None,
    stop: Annotated[str | None, "both|never"] = None,
    record: Annotated[str | None, "WHAT,..."] = None,
    set: Annotated[str | None, "FIELD=VALUES,...", Joined(",")] = None,
    setting: Annotated[str | None, "NAME=VALUE:FIELD=...,...;...", Joined("\n")] = None,
    engine: Annotated[str, "NAME"] = "auto",
    device: Annotated[str, "NAME"] = "auto",
    dtype: Annotated[str | None, "float32|float64"] = None,
    precision: Annotated[str | None, "ieee|tf32x3|tf32"] = None,
    threads: Number = None,
    shard: Annotated[str | None, "i/n|auto"] = None,
    data_dir: Folder = None,
    save_every: Annotated[str | None, "SECONDS"] = None,
    checkpoint: bool = True,
    launcher: Annotated[str, "none|ray"] = "none",
    address: Annotated[str | None, "HOST:PORT"] = None,
    dry_run: bool = False,
    overwrite: bool = False,
) -> int | None:
    """Train every cell of a grid; the same command again continues.

    VALUES is a number, a list 1e-4,1e-3, or a range: logspace:-5:-2:21 (powers of ten, both ends
    included), geomspace:1e-5:1e-2:21 (the same by its ends), linspace:0:20:21 (both ends included),
    range:0:5 (0 to 4). Several values make an axis of the grid. More values or more steps extend an
    existing file.

    Several machines share a grid as shards: each trains its own, say 2/8, into a file of its own,
    all may be stopped and continued at any time, grokfast status says how far they are, and
    grokfast merge joins them to the file that one machine would have written. For job arrays
    there is grokfast template.

    grokfast run addition-classification --lr=1e-4,1e-3 --weight-decay=linspace:0:20:5
    grokfast run modular-addition --setting='batch=8:batch_size=8,lr=1e-3;96:batch_size=96,lr=3e-3'

    Args:
        preset: A named experiment with its grid; grokfast presets lists them.
        out: Results file (HDF5). Default: PRESET.h5, of a shard PRESET.shard-i-of-n.h5. In the
            name of a shard's file, {shard} stands for i-of-n.
        lr: Learning rate (of the decoder, where a preset has an encoder).
        weight_decay: Weight decay, decoupled (AdamW).
        steps: Budget in optimizer steps.
        data_seed: Seed of the data: the split, and random targets.
        model_seed: Seed of the initial weights.
        activation: tanh, relu, leaky_relu or square.
        stop: End a cell once it has memorised and generalised, or never before the budget.
        record: Any of curves:N, curves:all, weights, embeddings:N, norms, neuron_norms,
            spectral_norm, ipr, neuron_ipr; or none. Curves are losses and accuracies, at N
            log-spaced or at all evaluated steps, weights the trained parameters. The others are
            measured at log-spaced steps, or every N with such a number behind a colon (embeddings
            without one every 10).
        set: Any other field by its dotted name, as optimizer.beta2=0.98,task.p=12, or values of a
            preset's setting, as batch=8,64; may be repeated. A tuple is written with plus signs, as
            evaluation.thresholds=0.5+0.99.
        setting: An axis whose values stand for several fields each, as in the second example; may
            be repeated.
        engine: native (C++ on the CPU), triton (GPU), compiled (torch.compile), reference (plain
            torch), or auto for the fastest that supports the experiment.
        device: auto, cpu, cuda or cuda:N.
        dtype: Precision of parameters and arithmetic.
        precision: Of float32 matrix products; the tf32 ones on a GPU only.
        threads: CPU threads.
        shard: Train shard i of n only, 1/n to n/n: every n-th cell. auto, in a job array, takes i
            and n from the variables of Slurm, Grid Engine or LSF; of Kubernetes and PBS i, and n
            from GROKFAST_SHARDS.
        data_dir: Folder with the MNIST files; they are downloaded where there are none.
        save_every: Seconds between saves, at least, 30 where not given; longer where saving takes
            more than 5% of the time.
        checkpoint: Keep no FILE.ckpt. It holds the state of cells that can still be trained: an
            interrupted run goes on from it, and so does a raised budget. Once neither is wanted it
            may be deleted; FILE is complete without it.
        launcher: ray trains blocks of cells on the machines of a Ray cluster (pip install
            'grokfast[ray]'), --threads cores (1 by default) or one GPU each, and writes the same
            file. FILE must lie on storage that all of them share; blocks go on elsewhere where a
            machine is lost, and the same command goes on where this one is.
        address: Of the Ray cluster, as ray start --head printed it, or auto; by default that of
            RAY_ADDRESS, else a Ray of this machine alone.
        dry_run: Show the resolved experiment, cells, memory, and a time measured from a few real
            steps; train and write nothing.
        overwrite: Start anew where the results file exists.
    """
    from grokfast.cli import running

    fields = {
        "lr": lr,
        "weight_decay": weight_decay,
        "steps": steps,
        "data_seed": data_seed,
        "model_seed": model_seed,
        "activation": activation,
        "stop": stop,
        "dtype": dtype,
        "precision": precision,
    }
    job = running.parse(
        preset,
        fields,
        sets=set,
        setting=setting,
        record=record,
        out=out,
        engine=engine,
        device=device,
        threads=threads,
        shard=shard,
        data_dir=data_dir,
        overwrite=overwrite,
        checkpoint=checkpoint,
        save_every=save_every,
        launcher=launcher,
        address=address,
    )
    if dry_run:
        running.dry_run(job)
        return None
    running.run(job)
    return None


def presets(*, json: bool = False) -> None:
    """List the experiments that can be reproduced.

    Args:
        json: Print JSON.
    """
    from grokfast.cli import show

    show.presets(json)


def fields(
    name: Annotated[str | None, "[NAME]"] = None,
    *,
    json: bool = False,
) -> None:
    """List the fields of an experiment: meaning, values, default.

    grokfast fields optimizer
    grokfast fields weight-decay

    Args:
        name: A field, or a part: experiment, optimizer, batches, evaluation, record, task, model,
            phase, or one task, model or phase rule by its name; every field where not given.
        json: Print JSON.
    """
    from grokfast.cli import fieldlist

    fieldlist.show(name, json)


def plot(
    file: Annotated[str, "FILE"],
    *,
    kind: Annotated[str | None, "KIND"] = None,
    where: Annotated[str | None, "AXIS:VALUE,..."] = None,
    rule: Annotated[str | None, "FIELD:VALUE,..."] = None,
    cell: Annotated[str | None, "AXIS:VALUE,...", Joined(";")] = None,
    budget: Number = None,
    over: Annotated[str | None, "AXIS,..."] = None,
    x: Annotated[str | None, "AXIS|epochs"] = None,
    y: Annotated[str | None, "AXIS"] = None,
    outcome: Annotated[str | None, "NAME"] = None,
    band: Annotated[str | None, "sd|none"] = None,
    until: Annotated[str | None, "generalised|end"] = None,
    epochs: Annotated[str | None, "N,..."] = None,
    title: Text = None,
    size: Annotated[str | None, "WIDTHxHEIGHTcm|in"] = None,
    dpi: Number = None,
    caption: bool = True,
    legend: bool = True,
    out: Annotated[str | None, "FIG.png|pdf|svg"] = None,
) -> None:
    """Draw a figure of a results file, also while its run goes on.

    grokfast plot r.h5 --kind=curves --cell=lr:1e-3,weight_decay:5 --out=curves.pdf
    grokfast plot r.h5 --where=model_seed:0 --rule=gap:500 --size=8.5x7cm --no-caption

    Args:
        file: Results file.
        kind: phases (the phase of each cell; the default, but of one axis of numbers times, and of
            a single cell curves), smooth (delay and T_train in colour), convergence (T_train and
            T_val), times (T_train and T_val along an axis), lines (any outcome along an axis, a
            line for each value of another); of chosen cells curves (losses and accuracies),
            observables (what was recorded by step), embeddings and outputs (rows of a transformer's
            output matrix, by t-SNE); tsne (hidden representations of
            the training set) and density (of the weights of each layer), for which cells are
            trained again. Of modular nets with weights, ipr (histograms over neurons), rows (what a
            few neurons read and write), gamma (BatchNorm's weights against IPR), phase-sums (of the
            neurons' waves), pruning (accuracy as neurons are removed), maps (preactivations and
            their Fourier transforms) and widths (accuracy of the analytic solution).
        where: Draw the slice of the grid that is nearest to these axis values.
        rule: As gap:500, or of another rule as collapse,kept:0.8, to read the phases anew without
            training. A new threshold must be one of the run's evaluation.thresholds.
        cell: The cell nearest to these axis values; may be repeated, or several split by ';'; all
            for every one.
        budget: Read the diagram as of this many steps.
        over: Axes of replicates, as model_seed, which are put together: the phase that most have,
            medians of steps, means of curves and observables.
        x: The axis that shall lie along x, as task.fraction; further axes make panels. For curves
            and observables, steps or epochs.
        y: The axis that shall lie along y; of lines, the one that has a line for each value.
        outcome: Of lines: best_val_acc (the default), final_val_acc, t_train, t_val, or the step
            over a further threshold, as t_val_0.99.
        band: Around means of curves and observables: sd (one standard deviation, the default), or
            none.
        until: For tsne and density, the last of the five epochs shown: in which the cell
            generalised (the default of tsne), or the end (of density). The first is the one in
            which it memorised.
        epochs: Instead of these five.
        title: Instead of the name of the preset; it may hold mathtext, as '$\\alpha$'.
        size: Width and height of the figure, as 8.5x6cm or 3.3x2.4in, or its width alone, as 8.5cm;
            letters grow with it.
        dpi: Dots per inch of a png. Default: 300.
        caption: Leave out the footnote.
        legend: Leave out the legend.
        out: Figure; its suffix chooses the format. Default: FILE with the kind and .png.
    """
    from grokfast.cli import reading

    reading.plot(
        file,
        kind,
        cell=cell,
        budget=budget,
        over=over,
        out=out,
        x=x,
        y=y,
        outcome=outcome,
        band=band,
        until=until,
        epochs=epochs,
        where=where,
        rule=rule,
        title=title,
        size=size,
        dpi=dpi,
        caption=caption,
        legend=legend,
    )


def info(file: Annotated[str, "FILE"], *, json: bool = False) -> None:
    """Show what a results file holds: progress, phases, axes, experiment, origin.

    A results file is HDF5, also while its run goes on; xarray opens it (engine h5netcdf) with named
    dimensions. Along run, one value a cell: every axis, t_train and t_val (-1 for never), phase,
    status, diverged_at, steps_done, the last and the best accuracies; [run, step]: losses and
    accuracies; and what was asked for by --record: embeddings, other observables, weights. Beside
    it FILE.ckpt holds the state of cells that can still be trained; without it a raised budget
    trains those cells again from the start, to the same bits.

    Args:
        file: Results file.
        json: Print JSON.
    """
    from grokfast.cli import reading

    reading.info(file, json)


def agree(
    file: Annotated[str, "FILE"],
    reference: Annotated[str | None, "[REFERENCE]"] = None,
    *,
    json: bool = False,
) -> None:
    """Compare a results file with published tables, or with another results file.

    Phases overall, of interior cells (those whose up to four neighbours in the table share their
    phase) and of border cells; T_train and T_val where the table has them. Cells are matched by
    the table's two axes, mostly learning rate and weight decay; a part of a grid is compared as far
    as it goes. The rows of the confusion table are the phases of the table (there), its columns
    those of the file (here). Losses
    and accuracies at steps are shown row by row: published, ours, their difference.

    Args:
        file: Results file.
        reference: Table of phases, steps or curves as JSON (see grokfast.agree.tables), or another
            results file; the published tables that come with grokfast where not given.
        json: Print JSON.
    """
    from grokfast.cli import reading

    reading.agree(file, reference, json)


def analyze(
    file: Annotated[str, "FILE"],
    *,
    cell: Annotated[str | None, "AXIS:VALUE,...", Joined(";")] = None,
    prune: bool = False,
    neurons: Annotated[str | None, "x.csv"] = None,
    curves: bool = False,
    window: Number = None,
    sharpness: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Say what the neurons of trained two-layer modular nets have learned, or what curves say.

    Of each cell the mean inverse participation ratio of the neurons (IPR, 1 for a pure wave) and
    the share of those above 0.5, the Frobenius norms of what neurons read of the first and the
    second symbol (U, V) and write (W), and final accuracies. The run must have kept its weights.

    With --curves, and of any other network, what the recorded accuracies say: first steps at 99%
    and their ratio, dips of the training accuracy (below 90% after 99.9%), medians of the last
    steps, means by window.

    Args:
        file: Results file.
        cell: Only the cell nearest to these axis values; may be repeated, or several split by ';'.
        prune: Also the accuracies as neurons are removed by tenths, in both orders of IPR, and in
            five random orders with their range.
        neurons: Also write the IPR of every neuron, and its BatchNorm weight |gamma|, to this file.
        curves: Analyse recorded curves instead of neurons.
        window: Steps of a window. Default: 1000.
        sharpness: With curves, also the sharpness of the trained network, by scipy: by how much its
            loss rises, at most, in a small box around its weights (Keskar et al. 2016).
        overwrite: Replace an existing file.
        json: Print JSON.
    """
    from grokfast.cli import analyzing, analyzing_curves

    of_neurons = {"prune": prune, "neurons": neurons}
    of_curves = {"window": window, "sharpness": sharpness}
    if analyzing_curves.chosen(file, curves, of_neurons, of_curves):
        analyzing_curves.analyze(file, cell, window=window, sharp=sharpness, as_json=json)
        return
    analyzing.analyze(file, cell, prune=prune, neurons=neurons, overwrite=overwrite, as_json=json)


def export(
    file: Annotated[str, "FILE"],
    *,
    out: Annotated[str, "x.csv|parquet|nc|json|-"],
    long: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the results as a table for other programs.

    In CSV a step that never came is NA, and what is not known yet an empty field.

    Args:
        file: Results file.
        out: The table; its suffix chooses the format. A minus sign is CSV on standard output.
        long: One row for each cell and recorded step, instead of one for each cell.
        overwrite: Replace an existing file.
    """
    from grokfast.cli import reading

    reading.export(file, out, long, overwrite)


def merge(
    files: Annotated[list[str], "A B ..."], *, out: Annotated[str, "FILE"], overwrite: bool = False
) -> None:
    """Join the shards of a run into one results file.

    grokfast merge r.shard-1-of-2.h5 r.shard-2-of-2.h5 --out=r.h5

    Args:
        files: The shards; together they hold every cell of the grid exactly once.
        out: Results file to write.
        overwrite: Replace an existing file.
    """
    from grokfast.cli import reading

    reading.merge(files, out, overwrite)


def status(files: Annotated[list[str], "A B ..."], *, json: bool = False) -> int | None:
    """Show how far the shards of a run are, also while they are trained, and what is missing.

    A line a file: progress, whether a run works on it and where, phases; then the sums, and shards
    or cells of the grid that have no file. Of a run on another machine only the lock is known: one
    that has not saved for long may have died.

    Exit codes: 0 all cells of all grids are done, 4 cells are missing or still to train, 3 a file
    is damaged or no results file (the others are shown all the same).

    grokfast status r.shard-*.h5

    Args:
        files: Results files, of one run or of several.
        json: Print JSON.
    """
    from grokfast.cli import status

    return status.act(files, json)


def template(
    scheduler: Annotated[str, "SCHEDULER"],
    preset: Annotated[str, "[PRESET]"] = "addition-classification",
    *,
    shards: Annotated[str, "N"] = "8",
    options: Annotated[str | None, "'--A=B ...'"] = None,
) -> None:
    """Print a job array for a cluster: a task a shard, gone on with after preemption, then merged.

    grokfast template slurm modular-addition --shards=16 --options='--steps=20000' > grid.sh
    grokfast template kubernetes addition-classification --shards=4 > grid.yaml

    Args:
        scheduler: slurm (a script for sbatch; bash submits it) or kubernetes (an indexed job).
        preset: What the tasks train.
        shards: Number of tasks.
        options: Further options of grokfast run, as one text in quotes.
    """
    from grokfast.cli import template

    template.act(scheduler, preset, shards, options)


def bench(
    *,
    models: Annotated[str, "N,..."] = "1,66",
    task: Annotated[str, "PRESET"] = "addition-classification",
    device: Annotated[str, "NAME"] = "auto",
    json: bool = False,
) -> int | None:
    """Measure this machine's engines against the eager PyTorch loop, side by side.

    Args:
        models: Numbers of models to train at once.
        task: addition-classification or addition-regression.
        device: auto, cpu, cuda or cuda:N.
        json: Print JSON rows instead of a table.
    """
    from grokfast.cli import benching

    return benching.act(models, task, device, json)


def doctor(*, json: bool = False) -> int | None:
    """Show versions, engines and why not, GPU, compilers and data of this machine.

    What decides the bits of a run besides its experiment is among them (instruction set, versions,
    threads); a run goes on only where it still holds. GROKFAST_NATIVE_LEVEL (baseline, avx2,
    avx512) chooses the instruction set of native.

    Args:
        json: Print JSON.
    """
    from grokfast.cli import show

    return show.doctor(json)


def data(
    action: Annotated[str, "ACTION"],
    task: Annotated[str | None, "[TASK]"] = None,
    *,
    set: Annotated[str | None, "FIELD=VALUE,...", Joined(",")] = None,
    data_seed: Number = None,
    out: Annotated[str | None, "x.csv|npz|-"] = None,
    overwrite: bool = False,
    data_dir: Folder = None,
) -> int | None:
    """List, show and export data sets; fetch the MNIST files.

    grokfast data list
    grokfast data show modular --set=p=23,corruption=0.35
    grokfast data export addition-regression --out=pairs.csv
    grokfast data fetch

    Args:
        action: list prints the tasks with their fields, show one data set (sizes, first rows,
            digests), export writes it; of the MNIST files fetch downloads what is missing, verify
            checks every byte, path prints the folder.
        task: For show and export, a task, or a preset for its task with its values.
        set: Fields of the task; may be repeated.
        data_seed: Seed of the data.
        out: The file to export to; its suffix chooses the format. A minus sign is CSV on standard
            output.
        overwrite: Replace an existing file.
        data_dir: Folder of the MNIST files. Default, $GROKFAST_DATA, torchvision's, the user's
            cache.
    """
    from grokfast.cli import datasets

    return datasets.act(
        action,
        task=task,
        set=set,
        data_seed=data_seed,
        out=out,
        overwrite=overwrite,
        data_dir=data_dir,
    )


def completion(shell: Annotated[str, "bash|zsh|fish"]) -> None:
    """Print a completion script for the shell: commands, options, presets, fields and files.

    In ~/.bashrc or ~/.zshrc eval "$(grokfast completion bash)", with the name of the shell; in
    fish's config.fish, grokfast completion fish | source.

    Args:
        shell: bash, zsh or fish.
    """
    from grokfast.cli.completion import script

    print(script(shell, COMMANDS))


COMMANDS: dict[str, Callable[..., Any]] = {
    "run": run,
    "presets": presets,
    "fields": fields,
    "plot": plot,
    "info": info,
    "agree": agree,
    "analyze": analyze,
    "export": export,
    "merge": merge,
    "status": status,
    "template": template,
    "data": data,
    "bench": bench,
    "doctor": doctor,
    "completion": completion,
}
