#!/bin/bash
# A Slurm job array of @SHARDS@ shards, and their merge.
#
# Look first at what it takes:  @RUN@ --dry-run
# Submit:                       bash THIS-FILE      (the shards, and behind them their merge)
# How far it is:                grokfast status FOLDER/@PRESET@.shard-*.h5
#
# A task that is preempted or reaches its time limit saves, ends and is queued again; it goes on
# where it was, to the same bits. So does any task that is submitted again, in any order. A part of
# the array again:  sbatch --array=3,7 --export=ALL,GROKFAST_SHARDS=@SHARDS@ THIS-FILE

#SBATCH --job-name=@PRESET@
# One task a shard; the array says how many there are (SLURM_ARRAY_TASK_MIN, _MAX, _COUNT, _STEP).
#SBATCH --array=1-@SHARDS@
# Cores of a task: grokfast has as many threads. For a GPU add --gpus-per-task=1.
#SBATCH --cpus-per-task=4
# What --dry-run says of a shard, and 1 GiB for Python.
#SBATCH --mem=4G
# May be short: a task that has not come to its end in this time goes on in its next one.
#SBATCH --time=04:00:00
# Seconds between the warning (SIGUSR1, to this script) and the end. Saving takes seconds; a MNIST
# grid or a slow file system wants more. Where a cluster preempts, it sends this signal too if its
# administrators have set PreemptParameters=send_user_signal, else SIGTERM.
#SBATCH --signal=B:USR1@120
# May be queued again, and then adds to its log.
#SBATCH --requeue
#SBATCH --open-mode=append
# %A is the array, %a the task.
#SBATCH --output=%x-%A_%a.log

# Where the results go: a folder that all nodes see.
FOLDER=${SLURM_SUBMIT_DIR:-$PWD}
# What is trained: a preset (grokfast presets) and the options of grokfast run.
PRESET=@PRESET@
OPTIONS=(@OPTIONS@)
# The same instruction set on each node: without this line a node with a better processor gives
# other bits, and refuses to go on with a shard that another one has begun (exit code 2). Or keep to
# nodes of one kind: #SBATCH --constraint=...
#export GROKFAST_NATIVE_LEVEL=avx2

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then # no task yet: submits, and the merge for when all have ended
    mkdir -p "$FOLDER"
    array=$(sbatch --parsable "$0") || exit
    exec sbatch --dependency="afterok:${array%%;*}" --job-name="$PRESET-merge" --wrap="$(
        printf 'cd %q && ' "$FOLDER"
        printf 'grokfast merge %q.shard-*-of-@SHARDS@.h5 --out=%q.h5 --overwrite' "$PRESET" "$PRESET"
    )"
fi

# In the background: bash itself hears signals, and hands them on. SLURM_CPUS_PER_TASK is what
# --cpus-per-task asked for. --shard=auto is SLURM_ARRAY_TASK_ID of the array, {shard} i-of-n.
grokfast run "$PRESET" "${OPTIONS[@]}" --shard=auto --out="$FOLDER/$PRESET.shard-{shard}.h5" \
    --threads="${SLURM_CPUS_PER_TASK:-1}" &
grokfast=$!
trap 'asked=yes; kill -USR1 "$grokfast"' USR1
trap 'asked=yes; kill -TERM "$grokfast"' TERM
while # wait returns at each signal
    asked=
    wait "$grokfast"
    code=$?
    [ -n "$asked" ]
do :; done

case $code in
    0) ;;        # this shard is complete
    138 | 143)   # 128 + USR1 or TERM: all is saved, to be continued
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" ;;
    *) ;;        # 2 a wrong option, 3 a full disk or missing data, 137 killed (memory), 1 a bug:
                 # the log says which; once that is mended, submit again
esac
exit "$code"
