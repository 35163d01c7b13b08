"""Downloads from a server on this machine that can cut connections, ignore ranges and lie."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from offprint import data
from offprint.data import DownloadError, registry
from offprint.data.download import RemoteFile, fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=lambda: {"/file.bin": CONTENT})
    ranges: bool = True
    sizes: bool = True
    cut_after: int | None = None
    asked: list[str | None] = field(default_factory=list)
    failures: int = 0


@pytest.fixture
def server():
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            behaviour.asked.append(self.headers.get("Range"))
            content = behaviour.files.get(self.path)
            if content is None or behaviour.failures > 0:
                behaviour.failures -= 1
                self.send_error(404 if content is None else 503)
                return
            start = 0
            if behaviour.ranges and (asked := self.headers.get("Range")):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if behaviour.sizes:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = len(content) if behaviour.cut_after is None else start + behaviour.cut_after
            self.wfile.write(content[start:stop])

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        behaviour.url = f"http://127.0.0.1:{http.server_address[1]}/"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield behaviour
        http.shutdown()
        thread.join()


def remote(server, digest=SHA256, addresses=None):
    return RemoteFile("folder/file.bin", digest, addresses or (server.url,))


def test_a_file_arrives_whole_with_progress_and_only_once(server, tmp_path):
    reports = []
    path = fetch(remote(server), tmp_path, lambda *report: reports.append(report))
    assert path == tmp_path / "folder" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert reports[-1] == (len(CONTENT), len(CONTENT), "file.bin")
    assert [done for done, _, _ in reports] == sorted({done for done, _, _ in reports})
    fetch(remote(server), tmp_path)
    assert server.asked == [None]


def test_a_cut_connection_is_resumed_where_it_stopped(server, tmp_path):
    server.cut_after = 1_000_000
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_later_call_resumes_from_the_part(server, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.bin.part").write_bytes(CONTENT[:1234])
    reports = []
    assert fetch(remote(server), tmp_path, lambda *report: reports.append(report)).read_bytes() == CONTENT
    assert server.asked == ["bytes=1234-"]
    assert reports[0][0] > 1234
    assert reports[-1][:2] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("part", [b"x" * 1234, CONTENT + b"more"])
def test_a_server_without_ranges_starts_again(server, tmp_path, part):
    server.ranges = False
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.bin.part").write_bytes(part)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(part)}-"]


def test_a_server_that_does_not_say_sizes_is_believed_by_digest(server, tmp_path):
    server.sizes = server.ranges = False
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    server.cut_after = 10
    with pytest.raises(DownloadError, match="another digest"):
        fetch(remote(server, addresses=(server.url,)), tmp_path / "other")


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"y" * 500])
def test_a_part_that_is_whole_too_long_or_wrong_ends_well(server, tmp_path, part):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.bin.part").write_bytes(part)
    path = fetch(remote(server, addresses=(server.url, server.url)), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_wrong_digest_leaves_nothing_and_the_next_address_is_tried(server, tmp_path):
    server.files["/bad/file.bin"] = CONTENT[::-1]
    with pytest.raises(DownloadError, match=r"file.bin has another digest than sha256:"):
        fetch(remote(server, addresses=(server.url + "bad/",)), tmp_path)
    assert list((tmp_path / "folder").iterdir()) == []
    path = fetch(remote(server, addresses=(server.url + "bad/", server.url + "gone/", server.url)), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_file_with_a_wrong_digest_in_place_is_replaced(server, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.bin").write_bytes(b"damaged")
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT


def test_failures_are_counted_and_named(server, tmp_path):
    server.failures = 3
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 4
    server.asked.clear()
    server.failures = 100
    with pytest.raises(DownloadError, match="gave up after 4 attempts: HTTP Error 503"):
        fetch(remote(server), tmp_path / "other")
    assert len(server.asked) == 4
    with pytest.raises(DownloadError, match="HTTP Error 404"):
        fetch(remote(server, addresses=(server.url + "gone/",)), tmp_path / "third")
    with pytest.raises(ValueError, match="known algorithm"):
        fetch(remote(server, digest="crc:1"), tmp_path)


def test_get_downloads_a_dataset_that_then_loads(server, tmp_path, monkeypatch):
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2)
    for part, n in (("train", 3), ("t10k", 2)):
        pixels = struct.pack(">4I", 0x803, n, 2, 2) + images[:n].tobytes()
        server.files[f"/mirror/{part}-images-idx3-ubyte.gz"] = gzip.compress(pixels)
        server.files[f"/mirror/{part}-labels-idx1-ubyte.gz"] = gzip.compress(struct.pack(">2I", 0x801, n) + bytes(n))
    loader, description = registry.REGISTRY["mnist"]
    files = tuple(
        RemoteFile(file.path, "md5:" + hashlib.md5(server.files[f"/mirror/{file.name}"]).hexdigest(), file.addresses)
        for file in description.files
    )
    small = registry.Description("mnist", description.summary, True, files)
    monkeypatch.setitem(registry.REGISTRY, "mnist", (loader, small))
    monkeypatch.setenv("OFFPRINT_DATA", str(tmp_path / "mine"))
    reports = []
    folder = data.get("mnist", lambda *report: reports.append(report), server.url + "mirror")
    assert folder == tmp_path / "mine"
    assert {name for _, _, name in reports} == {file.name for file in files}
    assert data.load("mnist", "all").inputs.shape == (5, 1, 2, 2)
    assert len(server.asked) == 4
