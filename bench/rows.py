"""Raw rows of the benchmark, as files of JSON lines or in an archive of bench/gpu.py."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from grokfast.errors import UsageError

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, or of all ``*.jsonl`` in an archive.

    Raises:
        UsageError: the file is not there, or holds something else.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if name.endswith(".jsonl")]
                text = "".join(archive.read(name).decode() for name in inside)
        else:
            text = path.read_text()
        return [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} has no rows of a benchmark: {error}") from error


def append_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
