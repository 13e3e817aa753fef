from __future__ import annotations

import gzip
import hashlib
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server

import pytest

from edgeprune.core.errors import DataError, StorageError
from edgeprune.core.progress import Silent
from edgeprune.data import idx
from edgeprune.data.download import Remote, fetch

CONTENT = bytes(range(256)) * 3000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self):
        if "short" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            super().do_GET()


@pytest.fixture
def site(tmp_path):
    """(its URL, its folder) of a real HTTP server."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "file.bin").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nobody():
    """A URL where nothing listens."""
    with create_server(("127.0.0.1", 0)) as socket:
        port = socket.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def remote(*mirrors: str, name: str = "file.bin", data: bytes = CONTENT) -> Remote:
    return Remote(name, mirrors, hashlib.md5(data).hexdigest())


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_good_file_with_progress(tmp_path, site):
    class Watch(Silent):
        title, total, done = "", 0, 0

        @contextmanager
        def bar(self, title, total):
            self.title, self.total = title, total
            yield self

        def advance(self, steps=1, note=""):
            self.done += steps

    watch = Watch()
    path = fetch(remote(site[0]), tmp_path / "new/place", watch, hint="x")
    assert path.read_bytes() == CONTENT
    assert left(path.parent) == ["file.bin"]
    assert (watch.title, watch.total, watch.done) == ("download file.bin", len(CONTENT), len(CONTENT))


def test_second_mirror(tmp_path, site, nobody):
    assert fetch(remote(nobody, site[0]), tmp_path, Silent(), hint="x").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("file.bin", "127.0.0.1: the file is not the published one (wrong checksum)"),
        ("short.bin", "127.0.0.1: the file is not the published one (wrong checksum)"),
        ("missing.bin", "127.0.0.1: File not found"),
    ],
)
def test_wrong_short_and_missing_files_are_not_kept(tmp_path, site, fails, name, phrase):
    want = remote(site[0], name=name, data=b"other")
    text = fails(DataError, phrase, fetch, want, tmp_path / "data", Silent(), hint="put it there")
    assert text.startswith(f"cannot download {name}")
    assert text.endswith("put it there")
    assert left(tmp_path / "data") == []


def test_nobody_listens(tmp_path, nobody, fails):
    fails(DataError, "127.0.0.1: Connection refused", fetch, remote(nobody), tmp_path / "data", Silent(), hint="x")


def test_no_such_host(tmp_path, fails):
    fails(
        DataError, "no.such.host.invalid: ", fetch, remote("http://no.such.host.invalid"), tmp_path, Silent(), hint="x"
    )


def test_a_silent_server_is_given_up(tmp_path, fails):
    with create_server(("127.0.0.1", 0)) as socket:
        want = remote(f"http://127.0.0.1:{socket.getsockname()[1]}")
        began = time.monotonic()
        fails(DataError, "timed out", fetch, want, tmp_path, Silent(), hint="x", timeout_s=0.2)
        assert time.monotonic() - began < 5


def test_a_folder_that_cannot_be_made(tmp_path, site, fails):
    (tmp_path / "data").write_text("a file, not a folder")
    fails(StorageError, "cannot write", fetch, remote(site[0]), tmp_path / "data", Silent(), hint="x")


def _known(site: tuple[str, Path], idx_folder) -> idx.IdxSet:
    idx_folder(site[1])
    md5s = [hashlib.md5(gzip.decompress((site[1] / name).read_bytes())).hexdigest() for name in idx.FILES]
    return idx.IdxSet("small", ("small", "."), (site[0],), tuple(md5s), tuple("0123456789"))


def test_missing_idx_files_are_downloaded_once(tmp_path, site, idx_folder):
    known = _known(site, idx_folder)
    first = idx.load_idx(known, tmp_path / "data", Silent())
    assert sorted(left(tmp_path / "data/small")) == sorted(idx.FILES)
    for name in idx.FILES:
        (site[1] / name).unlink()
    again = idx.load_idx(known, tmp_path / "data", Silent())
    assert (first.x_train == again.x_train).all()


def test_a_damaged_idx_download_is_not_kept(tmp_path, site, idx_folder, fails):
    known = _known(site, idx_folder)
    (site[1] / idx.FILES[2]).write_bytes(b"an error page")
    text = fails(DataError, "wrong checksum", idx.load_idx, known, tmp_path / "data", Silent())
    assert f"cannot download {idx.FILES[2]}" in text
    assert sorted(left(tmp_path / "data/small")) == sorted(idx.FILES[:2])


def test_offline_says_which_files_to_put_where(tmp_path, nobody, fails):
    known = idx.IdxSet("small", ("small", "."), (nobody,), ("", "", "", ""), ("0", "1"))
    text = fails(DataError, "Connection refused", idx.load_idx, known, tmp_path, Silent())
    assert all(name in text for name in idx.FILES)
    assert f"into {tmp_path / 'small'}" in text
    assert left(tmp_path) == []
