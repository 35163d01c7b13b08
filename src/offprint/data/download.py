"""Download files: resumed where a connection was cut, checked by digest, put in place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offprint import __version__

Progress = Callable[[float, float, str], None]
CHUNK = 1 << 18
TIMEOUT = 60.0
ATTEMPTS = 4  # per address; what has arrived is kept between them


class DownloadError(OSError):
    """A file could not be had from any of its addresses; the message says what went wrong at each."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Parameters
    ----------
    path : str
        Where it goes below a root; its last part is its name at every address.
    digest : str
        "algorithm:hex", with an algorithm that hashlib knows, such as "sha256".
    addresses : tuple of str
        The URL prefixes it may be had from, best first, each ending with a slash.

    Examples
    --------
    >>> RemoteFile("toy/data.csv", "md5:0", ("https://example.org/",)).name
    'data.csv'
    """

    path: str
    digest: str
    addresses: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rsplit("/", 1)[-1]


def fetch(file: RemoteFile, root: Path, progress: Progress | None = None, base_url: str | None = None) -> Path:
    """Download one file below a root, unless it is already there and has the right digest.

    Parameters
    ----------
    file : RemoteFile
        What to download.
    root : Path
        The folder below which it goes; folders are made as needed.
    progress : callable, optional
        Called as ``progress(done, total, name)`` in bytes; ``total`` is 0 where unknown.
    base_url : str, optional
        Download from here instead of the file's own addresses.

    Returns
    -------
    Path

    Raises
    ------
    DownloadError
        If no address gives a file of this digest.
    ValueError
        If an address is neither http nor https.

    Notes
    -----
    Bytes arrive in ``<name>.part`` beside the target. A later call goes on from there where the server allows ranges,
    and starts again where it does not. The part replaces the target in one step, after its digest has been checked.

    Examples
    --------
    >>> fetch(RemoteFile("toy.csv", "md5:0", ()), Path(), base_url="ftp://example.org")
    Traceback (most recent call last):
    ValueError: base_url must begin with http:// or https://; got 'ftp://example.org'
    """
    addresses: Sequence[str] = file.addresses if base_url is None else (base_url.rstrip("/") + "/",)
    for address in addresses:
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://; got {base_url!r}")
    target = root / file.path
    if target.is_file() and matches(target, file.digest):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    faults = []
    for address in addresses:
        try:
            _complete(address + file.name, part, progress, file.name)
            if matches(part, file.digest):
                part.replace(target)
                return target
            part.unlink()
            faults.append(f"{address}{file.name} has another digest than {file.digest}")
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{address}{file.name}: {error}")
    raise DownloadError(f"{file.name} could not be downloaded: {'; '.join(faults)}")


def matches(path: Path, digest: str) -> bool:
    """Say whether a file has this digest.

    Parameters
    ----------
    path : Path
        The file.
    digest : str
        "algorithm:hex".

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If the algorithm is unknown.

    Examples
    --------
    >>> matches(Path(__file__), "sha256:" + hashlib.sha256(Path(__file__).read_bytes()).hexdigest())
    True
    """
    algorithm, _, expected = digest.partition(":")
    if algorithm not in hashlib.algorithms_available:
        raise ValueError(f"digest must be 'algorithm:hex' with a known algorithm; got {digest!r}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected.lower()


def _complete(url: str, part: Path, progress: Progress | None, name: str) -> None:
    """Ask again until the whole file has arrived, as long as each attempt brings something or attempts are left."""
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, part, progress, name)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # the part is not a beginning of this file
                part.unlink()
            elif error.code < 500:
                raise
            cut: Exception = error
        except (OSError, http.client.HTTPException) as error:
            cut = error
        grown = part.exists() and part.stat().st_size > before
        failed = 0 if grown else failed + 1
        if failed >= ATTEMPTS:
            raise OSError(f"gave up after {ATTEMPTS} attempts: {cut}") from cut


def _continue(url: str, part: Path, progress: Progress | None, name: str) -> None:
    """Append what is still missing to the part, in one request."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"offprint/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        have, total = _extent(response, have)
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total, name)
    if have < total:
        raise ConnectionError(f"the connection was cut after {have} of {total} bytes")


def _extent(response: Any, have: int) -> tuple[int, int]:
    """Return where the response's bytes begin and how many the whole file has (0 if the server does not say)."""
    answered = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == 206 and answered and int(answered[1]) == have:
        return have, int(answered[2])
    if response.status == 206:
        raise ConnectionError(f"the server answered with another range than was asked for: {response.headers}")
    return 0, int(response.headers.get("Content-Length", 0))
