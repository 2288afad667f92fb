"""Reading HDF5 files that may be damaged: HDF5's own code may crash on them, or never end.

A file whose seal holds (see :mod:`grokfast.storage.seal`) is read in this process. Any other is
read by a child process, which the kernel ends when a piece takes more processor time than it can
need, and which hands plain arrays over: a frame is a length (64 bits, little-endian), as much JSON,
and the bytes of the array that it announces.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from grokfast.errors import Damaged, EnvironmentProblem, UsageError
from grokfast.storage import hdf5, seal
from grokfast.storage.files import check_file
from grokfast.storage.hdf5 import Dataset, Group, Piece, Unread

#: Seconds of processor time for a piece, and bytes a second that come on top of them.
CPU_SECONDS, BYTES_A_SECOND = 1.0, 50e6
#: Seconds that nothing may come from the child, as of a disk that does not answer.
SILENCE = 60
#: Memory of a piece besides that of its array, in bytes.
_ROOM = 1 << 29
#: Longest JSON of a frame, in bytes.
_LONGEST = 1 << 28

#: How a checkpoint begins, which is no HDF5 file.
CHECKPOINT = b"grokfast-checkpoint\n\0\0\0\0"
#: The child's program.
_CODE = "from grokfast.storage.guarded import serve; serve()"
_HDF5 = b"\x89HDF\r\n\x1a\n"
#: One of these is in every file of ours.
_OURS = (b"grokfast-results", b"grokfast-checkpoint", seal.MARK, b"identities")


def read(path: Path, depth: int, reader: Reader | None = None) -> tuple[str, list[Piece]]:
    """The content of an HDF5 file of ours, down to ``depth`` groups below its own.

    Args:
        reader: reads files without a whole seal; by default one for this file alone.

    Returns:
        What its seal is (see :func:`grokfast.storage.seal.sealed`), and the pieces.

    Raises:
        UsageError: no such file, no HDF5 file, or links and data outside it.
        Damaged: it cannot be read to its end.
        EnvironmentProblem: it cannot be opened, or no process can be started.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            state = seal.sealed(file)
            file.seek(0)
            start = file.read(len(_HDF5))
            if start != _HDF5:
                raise _no_hdf5(path)
            if state == seal.WHOLE:
                with h5py.File(file, "r") as opened:
                    return state, list(hdf5.pieces(opened, depth, lambda size: None))
    except hdf5.Refused as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror or error}") from error
    if reader is not None:
        return state, list(reader.pieces(path, depth))
    with Reader() as own:
        return state, list(own.pieces(path, depth))


def _no_hdf5(path: Path) -> UsageError | Damaged:
    """Of a file that does not begin as HDF5 files do: it may have been ours."""
    if not path.stat().st_size:
        return Damaged(path, "it is empty")
    before = b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if not before and block.startswith(CHECKPOINT):
                return UsageError(f"{path} is a checkpoint, no results file")
            if any(mark in before + block for mark in _OURS):
                return Damaged(path, "it does not begin as an HDF5 file does")
            before = block[-64:]
    return UsageError(f"{path} is no readable HDF5 file")


class Reader:
    """The child process; started when first needed, and again after a file that has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def pieces(self, path: Path, depth: int) -> Iterator[Piece]:
        """See :func:`read`."""
        process = self._started()
        whole = False
        try:
            request = {"path": os.fspath(path.absolute()), "depth": depth}
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its end says why
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            while (piece := self._piece(process, path)) is not None:
                yield piece
            whole = True
        except (Damaged, UsageError) as error:
            whole = getattr(error, "complete", False)
            raise
        finally:
            if not whole:  # nobody knows what is still on its way
                self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            code = f"import sys; sys.path[:] = {sys.path!r}; {_CODE}"
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-W", "ignore", "-c", code],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C is for us
                )
            except OSError as error:
                raise EnvironmentProblem(
                    f"cannot start a process to read the file: {error.strerror or error}"
                ) from error
        return self._process

    def _piece(self, process: subprocess.Popen[bytes], path: Path) -> Piece | None:
        """The next one; None after the last."""
        length = int.from_bytes(self._bytes(process, path, 8), "little")
        if length > _LONGEST:
            raise Damaged(path, "its reader failed")
        try:
            frame = json.loads(bytes(self._bytes(process, path, length)))
            match frame.pop("kind"):
                case "group":
                    return Group(**frame)
                case "dataset":
                    return self._dataset(process, path, frame)
                case "unread":
                    return Unread(**frame)
                case "end":
                    return None
                case "damaged":
                    raise _complete(Damaged(path, frame["why"]))
                case "refused":
                    raise _complete(UsageError(f"{path}: {frame['why']}"))
                case other:
                    raise ValueError(f"unknown frame {other!r}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(path, "its reader failed") from error

    def _dataset(
        self, process: subprocess.Popen[bytes], path: Path, frame: dict[str, Any]
    ) -> Dataset:
        shape, text = tuple(frame.pop("shape")), frame.pop("text")
        dtype = frame.pop("dtype")
        values: NDArray[Any]
        if text is not None:
            values = np.array(text, object).reshape(shape)
        else:
            if dtype[1] not in "iuf":
                raise ValueError(dtype)
            size = math.prod(shape) * np.dtype(dtype).itemsize
            data = self._bytes(process, path, size)
            values = np.frombuffer(data, dtype).reshape(shape)
        return Dataset(**frame | {"dims": tuple(frame["dims"]), "values": values})

    def _bytes(self, process: subprocess.Popen[bytes], path: Path, size: int) -> bytearray:
        """The next bytes of the child.

        Raises:
            Damaged: there are none.
        """
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        data = bytearray(size)
        left = memoryview(data)
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        silent = 0
        while left:
            # In seconds that this process sees: where both are halted, neither is to blame.
            if not poll.poll(1000):
                silent += 1
                if silent >= SILENCE:
                    raise Damaged(path, f"reading it has brought nothing for {SILENCE} s")
                continue
            if not (got := os.readv(pipe, [left])):
                raise Damaged(path, self._end(process))
            left, silent = left[got:], 0
        return data

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """Why there is nothing more."""
        process.communicate()
        code = process.returncode
        if code == -signal.SIGPROF:
            return "reading it does not end"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"reading it ended the reader ({how})"


def _complete(error: Damaged | UsageError) -> Damaged | UsageError:
    """An error that the child itself reports, and after which it waits for the next file."""
    error.complete = True  # type: ignore[union-attr]
    return error


def serve() -> None:
    """The child: reads files as asked on stdin, until it is closed."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no frame
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            with open(request["path"], "rb") as file, h5py.File(file, "r") as opened:  # noqa: PTH123
                for piece in hdf5.pieces(opened, request["depth"], _watch):
                    _send(out, piece)
            frame = {"kind": "end"}
        except hdf5.Refused as error:
            frame = {"kind": "refused", "why": str(error)}
        except Exception as error:
            why = str(error) or type(error).__name__
            frame = {"kind": "damaged", "why": " ".join(why.split())[:300]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        _frame(out, frame)


def _watch(size: int) -> None:
    """Gives the next piece its time and its memory."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS + size / BYTES_A_SECOND)
    with contextlib.suppress(ImportError, OSError, ValueError):  # where there is no /proc
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 3 * size + _ROOM
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS,
            (most if hard == resource.RLIM_INFINITY else min(most, hard), hard),
        )


def _send(out: int, piece: Piece) -> None:
    if isinstance(piece, Group):
        _frame(out, {"kind": "group", **vars(piece)})
    elif isinstance(piece, Unread):
        _frame(out, {"kind": "unread", **vars(piece)})
    else:
        values = piece.values
        text = values.ravel().tolist() if values.dtype.kind == "O" else None
        frame = {name: value for name, value in vars(piece).items() if name != "values"}
        frame |= {"shape": values.shape, "dtype": values.dtype.str, "text": text}
        _frame(out, {"kind": "dataset", **frame})
        if text is None and values.size:
            _write(out, np.ascontiguousarray(values).data.cast("B"))


def _frame(out: int, frame: dict[str, Any]) -> None:
    data = json.dumps(frame).encode()
    _write(out, memoryview(len(data).to_bytes(8, "little") + data))


def _write(out: int, data: memoryview) -> None:
    while data:
        data = data[os.write(out, data) :]
