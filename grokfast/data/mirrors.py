"""The mirrors: a file over https with time-outs, capped in size, with progress. Knows no MNIST."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from grokfast.errors import EnvironmentProblem

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TIMEOUT_S = 20.0  # without a byte from the server
DEADLINE_S = 900.0  # for one file: 11 kB/s for the largest, and an end for a trickling server
_CHUNK = 1 << 16


class TransferFailed(Exception):
    """The server or the way to it; the next mirror may do better."""


def mirrors() -> list[str]:
    """Where to ask, in this order: ``GROKFAST_MNIST_MIRROR`` alone where it is set."""
    own = os.environ.get("GROKFAST_MNIST_MIRROR", "")
    if not own:
        return list(MIRRORS)
    plain = own.isascii() and own.isprintable() and not set(own) & set(" @?#")
    if not plain or not allowed(own, localhost=True):
        # Not echoed: it may hold a password.
        raise EnvironmentProblem(
            "GROKFAST_MNIST_MIRROR is refused: https:// only, without password, '?' or '#'",
            hint="for example https://mirror.example.org/mnist/ (http:// for localhost only)",
        )
    return [own.rstrip("/") + "/"]


def allowed(url: str, *, localhost: bool) -> bool:
    """Whether files may come from ``url``: https, or http from this machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return False
    if parts.scheme == "http":
        return localhost and _is_localhost(url)
    return parts.scheme == "https" and bool(parts.hostname)


def _is_localhost(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not out of https: urllib would go on with http or ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        if not allowed(newurl, localhost=_is_localhost(req.full_url)):
            raise URLError(f"redirected to {newurl[:200]!r}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def chunks(url: str, name: str, size: int) -> Iterator[bytes]:
    """The body of ``url``, a file of ``size`` bytes unpacked; all failures are TransferFailed."""
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if _is_localhost(url):
        handlers.append(urllib.request.ProxyHandler({}))  # no proxy knows our localhost
    opener = urllib.request.build_opener(*handlers)
    request = urllib.request.Request(url, headers={"User-Agent": "grokfast"})
    deadline = time.monotonic() + DEADLINE_S
    received = 0
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            with _progress(f"{name}.gz", url, total) as advance:
                # read1 returns what there is: a trickling server cannot outlast the deadline.
                while chunk := response.read1(_CHUNK):
                    received += len(chunk)
                    # Random bytes grow a little by packing, nothing grows by a megabyte.
                    if received > size + (1 << 20):
                        raise TransferFailed(f"more than {received} bytes; too large")
                    if time.monotonic() > deadline:
                        raise TransferFailed(f"not finished after {DEADLINE_S:g} s")
                    yield chunk
                    advance(len(chunk))
    except HTTPError as error:
        error.close()
        raise TransferFailed(f"HTTP status {error.code}") from None
    except URLError as error:
        raise TransferFailed(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise TransferFailed(repr(error)) from None
    except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
        raise TransferFailed(str(error) or type(error).__name__) from None
    # http.client does not tell a cut connection from the end when reading piecewise.
    if total is not None and received != total:
        raise TransferFailed(f"connection cut after {received} of {total} bytes")


@contextlib.contextmanager
def _progress(name: str, url: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, one plain line elsewhere: no carriage returns in log files."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=name, unit="B", unit_scale=True, file=sys.stderr) as bar:
            yield bar.update
        return
    say(f"downloading {url}" + (f" ({total} bytes)" if total is not None else ""))
    yield lambda _: None


def say(line: str) -> None:
    print(f"grokfast: {line}", file=sys.stderr, flush=True)
