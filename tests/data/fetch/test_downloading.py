"""Downloads against a server on this machine: whole, cut off and resumed, changed, forged; archives that are traps."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ssvid.cli import main
from ssvid.data.fetch import downloading, fetching, unpacking
from ssvid.data.fetch.fetching import Connection, fetch, require_safe
from ssvid.data.fetch.sources import DataSet, Order, Source
from ssvid.data.fetch.unpacking import unpack
from ssvid.data.readers import kinetics
from ssvid.data.readers.shelf import readers
from ssvid.errors import DataError

BODY = bytes(range(256)) * 5000
QUICK = Connection(timeout_seconds=5.0, attempts=3, pause_seconds=0.0)


class Shelf:
    """What the server has, how it behaves, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []  # bytes after which an answer breaks off; one for each answer
        self.has_ranges = True
        self.has_lengths = True
        self.chunked = False
        self.stalls_after: int | None = None  # bytes; then nothing comes until ``go_on``
        self.go_on = threading.Event()
        self.statuses: list[int] = []
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""
        self.server: ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    shelf: Shelf

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        shelf, ranged = self.shelf, self.headers.get("Range")
        shelf.asked.append((self.path, ranged))
        if shelf.statuses:
            self.send_error(shelf.statuses.pop(0))
            return
        if self.path in shelf.redirects:
            self.send_response(302)
            self.send_header("Location", shelf.redirects[self.path])
            self.end_headers()
            return
        if self.path not in shelf.files:
            self.send_error(404)
            return
        body = shelf.files[self.path]
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        start = 0
        if ranged and shelf.has_ranges and self.headers.get("If-Range") in (None, tag):
            start = int(ranged.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if shelf.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif shelf.has_lengths:
            self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", tag)
        rest = body[start:]
        cut = (
            shelf.cuts.pop(0) if shelf.cuts else len(rest)
        )  # before the client has an answer, and the test the next cuts
        self.end_headers()
        if shelf.chunked:
            pieces = [rest[i : i + 100_000] for i in range(0, len(rest), 100_000)]
            self.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""]))
            return
        if shelf.stalls_after is not None:
            self.wfile.write(rest[: shelf.stalls_after])
            shelf.go_on.wait(60)
            return
        self.wfile.write(rest[:cut])


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    handler = type("OwnHandler", (Handler,), {"shelf": shelf})
    shelf.server = server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    shelf.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield shelf
    server.shutdown()
    server.server_close()
    thread.join()


def source(shelf: Shelf, name: str = "a.bin", body: bytes = BODY, **facts: Any) -> Source:
    shelf.files[f"/{name}"] = body
    return Source(f"{shelf.url}/{name}", **facts)


def get(wanted: Source, folder: Path, **options: Any) -> bytes:
    return fetch(wanted, folder, replace(QUICK, **options)).read_bytes()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- fetching


def test_a_whole_file_comes_once_with_its_progress(shelf: Shelf, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    wanted = source(shelf, size_bytes=len(BODY))
    assert get(wanted, tmp_path, progress=lambda *args: told.append(args)) == BODY
    assert told[-1] == (len(BODY), len(BODY), "a.bin")
    assert left_in(tmp_path) == ["a.bin"]
    assert get(wanted, tmp_path) == BODY
    assert shelf.asked == [("/a.bin", None)]


def test_what_breaks_off_is_resumed_where_it_broke(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cuts = [300_000, 500_000]
    assert get(source(shelf), tmp_path) == BODY
    assert shelf.asked == [("/a.bin", None), ("/a.bin", "bytes=300000-"), ("/a.bin", "bytes=800000-")]


def test_a_later_call_goes_on(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cuts = [400_000, 0, 0, 0]
    wanted = source(shelf)
    with pytest.raises(
        DataError,
        match=r"broke off after 400,000 bytes, 3 attempts without progress \(.*\)\. .*run the same command again",
    ):
        get(wanted, tmp_path)
    assert left_in(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    assert get(wanted, tmp_path) == BODY
    assert shelf.asked[-1] == ("/a.bin", "bytes=400000-")
    assert left_in(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_begins_anew(shelf: Shelf, tmp_path: Path) -> None:
    shelf.has_ranges, shelf.cuts = False, [400_000]
    assert get(source(shelf), tmp_path) == BODY
    assert shelf.asked == [("/a.bin", None), ("/a.bin", "bytes=400000-")]


def test_another_version_is_never_glued_to_the_first_part(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cuts = [400_000, 0, 0, 0]
    with pytest.raises(DataError):
        get(source(shelf), tmp_path)
    changed = bytes(reversed(BODY))
    assert get(source(shelf, body=changed), tmp_path) == changed


def test_killed_at_the_start_of_another_version_leaves_nothing_of_the_first(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.cuts = [400_000, 0, 0, 0]
    with pytest.raises(DataError):
        get(source(shelf), tmp_path)
    changed = bytes(reversed(BODY))

    def write_and_die(path: Path, value: Any) -> None:
        path.write_text(json.dumps(value))
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "write_json", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        get(source(shelf, body=changed), tmp_path)
    monkeypatch.undo()
    assert get(source(shelf, body=changed), tmp_path) == changed


def test_a_part_that_is_whole_or_too_long(shelf: Shelf, tmp_path: Path) -> None:
    wanted = source(shelf)
    for content, requests in ((BODY, [f"bytes={len(BODY)}-"]), (BODY + b"more", [f"bytes={len(BODY) + 4}-", None])):
        (tmp_path / "a.bin.part").write_bytes(content)
        (tmp_path / "a.bin.part.json").write_text(json.dumps({"url": wanted.url}))
        shelf.asked.clear()
        assert get(wanted, tmp_path) == BODY
        assert [ranged for _, ranged in shelf.asked] == requests
        (tmp_path / "a.bin").unlink()


def test_a_part_of_something_else_is_thrown_away(shelf: Shelf, tmp_path: Path) -> None:
    wanted = source(shelf)
    for note in (None, "no json", '{"url": "https://example.org/a.bin"}'):
        (tmp_path / "a.bin.part").write_bytes(b"other")
        if note:
            (tmp_path / "a.bin.part.json").write_text(note)
        assert get(wanted, tmp_path) == BODY
        (tmp_path / "a.bin").unlink()
    # The server names no version; that the file has grown is seen all the same.
    (tmp_path / "a.bin.part").write_bytes(b"other")
    (tmp_path / "a.bin.part.json").write_text(json.dumps({"url": wanted.url, "validator": "", "total": 77}))
    assert get(wanted, tmp_path) == BODY


def test_a_server_without_ranges_that_always_breaks_off_is_left_in_the_end(shelf: Shelf, tmp_path: Path) -> None:
    shelf.has_ranges, shelf.cuts = False, [400_000, 300_000, 200_000, 350_000]
    with pytest.raises(DataError, match="3 attempts without progress"):
        get(source(shelf), tmp_path)


def test_a_server_that_says_no_length_is_measured_by_the_table(shelf: Shelf, tmp_path: Path) -> None:
    shelf.has_lengths = False
    assert get(source(shelf, size_bytes=len(BODY)), tmp_path) == BODY
    with pytest.raises(DataError, match="1,280,000 bytes; 7 are known of this file"):
        get(source(shelf, "b.bin", size_bytes=7), tmp_path)
    assert not (tmp_path / "b.bin.part").exists()


def test_a_file_that_comes_in_chunks_of_the_protocol(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")
    shelf.chunked = True
    assert get(source(shelf), tmp_path) == BODY
    with pytest.raises(DataError, match="1,280,000 bytes; 7 are known of this file"):
        get(source(shelf, "b.bin", size_bytes=7), tmp_path)


def test_the_proxy_of_the_environment_is_asked(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", shelf.url)
    elsewhere = "http://localhost:9/a.bin"  # nobody listens there
    shelf.files[elsewhere] = BODY
    assert get(Source(elsewhere), tmp_path) == BODY
    assert shelf.asked == [(elsewhere, None)]


def test_killed_in_the_middle_it_goes_on_there(shelf: Shelf, tmp_path: Path) -> None:
    shelf.stalls_after, wanted = 700_000, source(shelf)
    code = (
        "import sys; from pathlib import Path; from ssvid.data.fetch.fetching import fetch; "
        "from ssvid.data.fetch.sources import Source; fetch(Source(sys.argv[1]), Path(sys.argv[2]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, wanted.url, str(tmp_path)]) as other:
        part = tmp_path / "a.bin.part"
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 500_000):
            assert time.monotonic() < deadline and other.poll() is None
            time.sleep(0.02)
        other.kill()
    shelf.go_on.set()
    shelf.stalls_after, had = None, part.stat().st_size
    assert get(wanted, tmp_path) == BODY
    assert shelf.asked == [("/a.bin", None), ("/a.bin", f"bytes={had}-")]


def test_a_busy_server_is_asked_again_and_a_lost_file_is_told(shelf: Shelf, tmp_path: Path) -> None:
    shelf.statuses = [503, 429]
    assert get(source(shelf), tmp_path) == BODY
    with pytest.raises(
        DataError, match=r"/none answers HTTP 404 \(Not Found\)\. It may have moved: .* Look elsewhere\."
    ):
        get(Source(f"{shelf.url}/none", note="Look elsewhere."), tmp_path)
    shelf.statuses = [503] * 3
    with pytest.raises(
        DataError, match=r"cannot be reached: 3 attempts, the last: HTTP 503 .*\. Check the network, or"
    ):
        get(source(shelf, "b.bin"), tmp_path)


def test_another_size_than_known_is_refused_before_it_comes(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"announces 1,280,000 bytes; 5 are known of this file\. The publisher has changed"
    ):
        get(source(shelf, size_bytes=5), tmp_path)
    assert left_in(tmp_path) == []
    shelf.cuts = [400_000, 0, 0, 0]
    wanted = source(shelf, size_bytes=len(BODY))
    with pytest.raises(DataError, match="broke off after 400,000 bytes"):
        get(wanted, tmp_path)
    source(shelf, body=b"<html>come back later</html>")
    with pytest.raises(DataError, match="announces 28 bytes"):
        get(wanted, tmp_path)
    source(shelf)
    assert get(wanted, tmp_path) == BODY
    assert shelf.asked[-1] == ("/a.bin", "bytes=400000-"), "an error page costs nothing of what had come"


def test_only_https_and_this_machine(shelf: Shelf, tmp_path: Path) -> None:
    for address in ("http://example.org/a", "ftp://example.org/a", "file:///etc/passwd"):
        with pytest.raises(DataError, match=r"address \(.*\) must begin with https://"):
            require_safe(address)
    require_safe("https://example.org/a")
    shelf.redirects["/go"] = "http://example.org/a.bin"
    with pytest.raises(DataError, match=r"address \(http://example\.org/a\.bin\) must begin with https://"):
        get(Source(f"{shelf.url}/go"), tmp_path)
    shelf.redirects["/go"] = "/a.bin"
    source(shelf)
    assert get(Source(f"{shelf.url}/go"), tmp_path) == BODY


def test_every_address_of_the_table_is_safe_and_every_checksum_has_a_name() -> None:
    sets = downloading.data_sets()
    orders = [Order(version, mirror=mirror) for version in ("", "600", "700") for mirror in (False, True)]
    rows: list[Source] = []
    read = lambda listed: rows.append(listed) or ""  # noqa: E731  the lists of archives are addresses as well
    for row in sets.values():
        for order in orders if row.versions else orders[:2]:
            rows += [source for source in row.sources(order, read) if source not in rows]
    assert len(set(rows)) == 7 + 3 * 3 + 3 * 2 + 1  # one archive of Kinetics-400 stands in no list
    for row in rows:
        require_safe(row.url)
        assert bool(row.recorded_by) == bool(row.sha256 or row.md5)
        assert len(row.sha256) in (0, 64) and len(row.md5) in (0, 32)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_server_with_a_certificate_of_its_own_needs_insecure_or_trust(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*make, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    shelf.server.socket = context.wrap_socket(shelf.server.socket, server_side=True)
    shelf.url = shelf.url.replace("http://", "https://")
    wanted = source(shelf)
    message = (
        r"the certificate of 127\.0\.0\.1 cannot be verified \(self-signed certificate\)\. Elsewhere\. .*"
        r"SSL_CERT_FILE=FILE\), or add --insecure .*nothing but no known checksum tells"
    )
    began = time.monotonic()
    with pytest.raises(DataError, match=message):
        fetch(replace(wanted, note="Elsewhere."), tmp_path / "out", replace(QUICK, pause_seconds=60.0))
    assert time.monotonic() - began < 30, "a certificate does not get better"
    assert left_in(tmp_path / "out") == []
    assert get(wanted, tmp_path / "out", insecure=True) == BODY
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(wanted, tmp_path / "trusted") == BODY


# ---- archives


def zip_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None, kind: bytes = tarfile.SYMTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


def archive(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def test_zip_and_tar_are_unpacked_over_what_is_there(tmp_path: Path) -> None:
    files = {"A/1.avi": b"one", "A/b/2.avi": b"two", "3 ü.txt": b"three"}
    out = tmp_path / "out"
    (out / "A").mkdir(parents=True)
    (out / "A/1.avi").write_bytes(b"old")
    for name, content in (("x.zip", zip_of(files)), ("x.tar.gz", tar_of({f"./{n}": c for n, c in files.items()}))):
        assert unpack(archive(tmp_path, name, content), out) == ["3 ü.txt", "A/1.avi", "A/b/2.avi"]
        assert {
            path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()
        } == files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.zip",
            zip_of({"good": b"x", "../evil": b"x"}),
            r"it holds the name '\.\./evil', which leads out of its folder",
        ),
        ("a.zip", zip_of({"/etc/evil": b"x"}), ".*, which leads out of its folder"),
        ("a.zip", zip_of({"a\\..\\..\\evil": b"x"}), ".*, which leads out of its folder"),
        ("a.zip", zip_of({"C:evil": b"x"}), ".*, which leads out of its folder"),
        ("a.zip", zip_of({"good": b"x"}, {"link": "/etc"}), "'link' in it is a link or a device"),
        ("a.tar.gz", tar_of({"a/../../evil": b"x"}), ".*, which leads out of its folder"),
        ("a.tar.gz", tar_of({"good": b"x"}, {"link": "/etc"}), "'link' in it is a link or a device"),
        ("a.tgz", tar_of({"good": b"x"}, {"hard": "good"}, tarfile.LNKTYPE), "'hard' in it is a link or a device"),
        ("a.tgz", tar_of({"good": b"x"}, {"pipe": ""}, tarfile.FIFOTYPE), "'pipe' in it is a link or a device"),
        ("a.zip", zip_of({"bomb": bytes(1 << 22)}), "more than 1,048,576 bytes come out of it"),
    ],
    # Not the bytes, which hold the second in which they were made: processes that collect the tests would not agree.
    ids=["up", "absolute", "backslashes", "drive", "link", "tar: up", "tar: link", "hard link", "pipe", "bomb"],
)
def test_a_trap_is_refused_as_a_whole(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    out = tmp_path / "in" / "out"
    with pytest.raises(DataError, match=rf"{name} is refused: {message}.*Nothing of it was unpacked"):
        unpack(archive(tmp_path, name, content), out)
    assert left_in(out) == []
    assert left_in(tmp_path / "in") == ["out"]


def test_damaged_archives_are_told(tmp_path: Path) -> None:
    whole = zip_of({"a": bytes(range(256)) * 99})
    broken = whole[:60] + b"\xff\xff\xff" + whole[63:]
    for name, content in (
        ("a.zip", b"<html>"),
        ("b.zip", broken),
        ("a.tar.gz", b"<html>"),
        ("b.tgz", tar_of({"a": BODY[:1_000_000]})[:900]),
    ):
        with pytest.raises(DataError, match=rf"{name} cannot be unpacked: .*Delete it and fetch it again"):
            unpack(archive(tmp_path, name, content), tmp_path / "out")
    assert left_in(tmp_path / "out") == []
    with pytest.raises(DataError, match=r"must be a \.zip, \.tar"):
        unpack(archive(tmp_path, "a.doc", b"x"), tmp_path / "out")


# Stands in for unrar: its "archives" are shell scripts that write the files, and say which in comments.
FAKE_UNRAR = """#!/bin/sh
for word; do case "$word" in *.rar) archive="$word";; esac; last="$word"; done
if [ "$1" = lb ]; then sed -n 's/^# holds //p' "$archive"; exit 0; fi
cd "$last" && exec sh "$archive"
"""


@pytest.fixture
def unrar(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for unrar, alone on the PATH with the shell's own tools."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "unrar"
    program.write_text(FAKE_UNRAR)
    program.chmod(0o755)
    monkeypatch.setattr(unpacking.shutil, "which", lambda command: str(program) if command == "unrar" else None)
    return program


def rar_of(*names: str, script: str = "") -> bytes:
    lines = [f"# holds {name}" for name in names]
    made = [f'mkdir -p "$(dirname "{name}")"; echo "{name}" > "{name}"' for name in names if not script]
    return "\n".join([*lines, *made, script, ""]).encode()


def test_rar_goes_through_a_program_and_is_looked_through(tmp_path: Path, unrar: Path) -> None:
    out = tmp_path / "out"
    assert unpack(archive(tmp_path, "a.rar", rar_of("A/1 x.avi", "A/2.avi")), out) == ["A/1 x.avi", "A/2.avi"]
    assert (out / "A/1 x.avi").read_text() == "A/1 x.avi\n"
    with pytest.raises(DataError, match=r"it holds the name '\.\./evil'"):
        unpack(archive(tmp_path, "b.rar", rar_of("../evil")), tmp_path / "b")
    with pytest.raises(DataError, match=r"'l' in it is a link or a device"):
        unpack(archive(tmp_path, "c.rar", rar_of("l", script="ln -s /etc l")), tmp_path / "c")
    with pytest.raises(DataError, match="more than 1,048,576 bytes come out of it"):
        unpack(archive(tmp_path, "d.rar", rar_of("x", script="head -c 2000000 /dev/zero > x")), tmp_path / "d")
    with pytest.raises(DataError, match=r"e\.rar cannot be unpacked \(unrar ends with 3: bad header\)\. Install unrar"):
        unpack(archive(tmp_path, "e.rar", rar_of("x", script="echo bad header >&2; exit 3")), tmp_path / "e")
    assert not (tmp_path / "evil").exists()


def test_archives_in_an_archive_are_unpacked_in_its_place(tmp_path: Path, unrar: Path) -> None:
    outer = rar_of("wave.rar", script=f"cat > wave.rar <<'END'\n{rar_of('wave/1.avi').decode()}END")
    assert unpack(archive(tmp_path, "hmdb51_org.rar", outer), tmp_path / "out", nested=True) == ["wave/1.avi"]


def test_without_a_program_nothing_is_fetched(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking.shutil, "which", lambda command: None)
    put(monkeypatch, DataSet("home", (source(shelf, "videos.rar"),)))
    with pytest.raises(
        DataError, match=r"unpacking \.rar needs one of the programs unrar, 7zz, 7z, bsdtar, and none is"
    ):
        downloading.download("davis", tmp_path)
    assert shelf.asked == []


# ---- data sets


def put(monkeypatch: pytest.MonkeyPatch, row: DataSet) -> None:
    """Make ``row`` what is fetched for davis."""
    readers.load()
    monkeypatch.setattr(readers, "_entries", dict(readers._entries))
    monkeypatch.setitem(readers._entries, "davis", replace(readers.get("davis"), download=row))


@pytest.fixture
def own_set(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A data set "davis" on the own server: a zip of lists with a checksum, a tar of videos without."""
    lists = zip_of({"lists/train.txt": b"a"})
    videos = tar_of({"videos/a.avi": b"A", "videos/b.avi": b"B"})
    known = hashlib.sha256(lists).hexdigest()
    row = DataSet(
        "https://home",
        (source(shelf, "videos.tar.gz", videos),),
        (source(shelf, "lists.zip", lists, sha256=known, recorded_by="somebody"),),
    )
    put(monkeypatch, row)
    return row


def load(folder: Path, name: str = "davis", *, insecure: bool = False, **options: Any) -> downloading.Download:
    own = {key: options.pop(key) for key in ("keep_archives", "say") if key in options}
    return downloading.download(name, folder, Order(**options), replace(QUICK, insecure=insecure), **own)


def test_a_data_set_is_fetched_once_and_remembered(own_set: DataSet, shelf: Shelf, tmp_path: Path) -> None:
    found = load(tmp_path)
    assert [(f.num_files, f.was_there, f.checked) for f in found.files] == [
        (1, False, "SHA-256 recorded by somebody"),
        (2, False, "no known checksum"),
    ]
    assert (tmp_path / "videos/b.avi").read_bytes() == b"B"
    assert left_in(tmp_path) == [".lock", "archives", "download.json", "lists", "videos"]
    assert left_in(tmp_path / "archives") == []
    assert str(found).endswith(f"terms of use: https://home\nnext: ssvid data index {tmp_path} --reader davis")
    record = json.loads((tmp_path / "download.json").read_text())["files"]
    videos = own_set.videos[0]
    assert record[videos.url]["sha256"] == hashlib.sha256(shelf.files["/videos.tar.gz"]).hexdigest()
    asked = len(shelf.asked)
    assert [f.was_there for f in load(tmp_path).files] == [True, True]
    assert len(shelf.asked) == asked
    (tmp_path / "videos/b.avi").unlink()
    assert [f.was_there for f in load(tmp_path, keep_archives=True).files] == [True, False]
    assert (tmp_path / "videos/b.avi").exists()
    assert left_in(tmp_path / "archives") == ["videos.tar.gz"]


def test_a_wrong_checksum_is_refused_and_the_file_set_aside(own_set: DataSet, shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/lists.zip"] = zip_of({"lists/train.txt": b"forged"})
    with pytest.raises(
        DataError, match=r"lists\.zip is not the file that was expected: .*SHA-256 recorded by somebody is "
    ):
        load(tmp_path)
    assert left_in(tmp_path) == [".lock", "archives"]
    assert left_in(tmp_path / "archives") == ["lists.zip.refused"]


def test_without_a_known_checksum_the_first_download_is_the_measure(
    own_set: DataSet, shelf: Shelf, tmp_path: Path
) -> None:
    load(tmp_path)
    (tmp_path / "videos/a.avi").unlink()
    shelf.files["/videos.tar.gz"] = tar_of({"videos/a.avi": b"other"})
    with pytest.raises(DataError, match=r"videos\.tar\.gz is not .*the SHA-256 of the earlier download is "):
        load(tmp_path)


def test_parts_of_a_data_set_and_what_is_not_there(own_set: DataSet, tmp_path: Path) -> None:
    assert [f.url for f in load(tmp_path, annotations_only=True).files] == [own_set.annotations[0].url]
    with pytest.raises(DataError, match="--mirror: no mirror of davis is known"):
        load(tmp_path, mirror=True)
    with pytest.raises(DataError, match=r"data set \('davs'\) must be one that can be fetched\. Did you mean 'davis'"):
        load(tmp_path, "davs")
    said: list[str] = []
    found = load(tmp_path / "other", annotations_only=True, insecure=True, say=said.append)
    assert found.files[0].checked.endswith("; certificate not verified")
    assert said == ["warning: certificates are not verified (--insecure); checksums are all that is left."]


def test_a_folder_in_use_a_file_and_a_damaged_record_are_told(own_set: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"file is a file\. Name a folder to download into"):
        load(tmp_path / "file")
    holder = f"import fcntl; f = open({str(tmp_path / '.lock')!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-S", "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        with pytest.raises(DataError, match="is in use by another download"):
            load(tmp_path)
        other.communicate(b"\n")
    (tmp_path / "download.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"download\.json is damaged \(KeyError: 'files'\)\. Delete it to fetch everything again"
    ):
        load(tmp_path)


def test_a_full_disk_is_told_before_anything_comes(
    own_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 40})
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        DataError, match=r"has 0\.0 GB free, and fetching and unpacking lists\.zip needs about 0\.0 GB\. Make room"
    ):
        load(tmp_path)
    assert left_in(tmp_path / "archives") == []


def test_kinetics_is_its_tables_and_the_archives_that_its_lists_name(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinetics, "_CVDF", shelf.url)
    for split in ("train", "val", "test"):
        shelf.files[f"/400/annotations/{split}.csv"] = b"label,youtube_id,time_start,time_end,split\n"
    names = [f"{shelf.url}/400/val/part_{i}.tar.gz" for i in range(2)]
    shelf.files["/400/val/k400_val_path.txt"] = "\r\n".join(names).encode()
    for i in range(2):
        shelf.files[f"/400/val/part_{i}.tar.gz"] = tar_of({f"./{i}.mp4": b"x"})
    found = load(tmp_path, "kinetics", splits=("val",))
    assert left_in(tmp_path / "val") == ["0.mp4", "1.mp4"]
    assert left_in(tmp_path / "annotations") == ["test.csv", "train.csv", "val.csv"]
    assert [file.was_there for file in found.files] == [False] * 5
    assert [file.was_there for file in load(tmp_path, "kinetics", splits=("val",)).files] == [True] * 5
    with pytest.raises(DataError, match=r"must list archives below .*; it has 'https://evil\.example/x\.tar\.gz'"):
        kinetics.archives("400", "val", "https://evil.example/x.tar.gz\n")
    mended = kinetics.archives("400", "train", f"{shelf.url}/400/train/part_0.tar.gz\n")
    assert [s.into for s in mended] == ["train", "train/replacement"]
    with pytest.raises(DataError, match=r"--version \('500'\) must be one of 400, 600, 700"):
        load(tmp_path, "kinetics", version="500")
    with pytest.raises(DataError, match=r"--split \('all'\) must be one of train, val, test"):
        load(tmp_path, "kinetics", splits=("all",))
    with pytest.raises(DataError, match=r"--version \('400'\) does nothing for ucf101\. Leave it out"):
        load(tmp_path, "ucf101", version="400")


# ---- the command, and real programs for .rar


def test_the_command_fetches_and_says_what_comes_next(own_set: DataSet, tmp_path: Path, capsys: Any) -> None:
    folder = str(tmp_path / "davis")
    assert main(["data", "download", "davis", folder]) == 0
    captured = capsys.readouterr()
    assert f"next: ssvid data index {folder} --reader davis" in captured.out
    assert "lists.zip, MB: 1/1" in captured.err
    assert "videos.tar.gz, MB: 1/1" in captured.err
    assert main(["data", "download", "davis", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [file["was_there"] for file in found["files"]] == [True, True]
    assert main(["data", "download", "davis", folder, "--mirror"]) == 2
    assert "no mirror of davis is known" in capsys.readouterr().err


def stored_rar(files: dict[str, bytes]) -> bytes:
    """A .rar (version 4) that holds files as they are, written by hand after the published description of the format."""

    def block(kind: int, flags: int, body: bytes = b"", data: bytes = b"") -> bytes:
        header = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(header) & 0xFFFF) + header + data

    def entry(name: str, data: bytes) -> bytes:
        spelled = name.replace("/", "\\").encode()
        size, time, unix, method = len(data), 0x5A210000, 3, 0x30
        facts = struct.pack(
            "<IIBIIBBHI", size, size, unix, zlib.crc32(data), time, 20, method, len(spelled), stat.S_IFREG | 0o644
        )
        return block(0x74, 0x8000, facts + spelled, data)

    start = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    return start + b"".join(entry(name, data) for name, data in files.items()) + block(0x7B, 0x4000)


@pytest.mark.parametrize("program", unpacking.RAR_PROGRAMS, ids=lambda program: program.command)
def test_a_real_program_unpacks_rar(
    program: unpacking.RarProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(program.command) is None:
        pytest.skip(f"{program.command} is not installed")
    monkeypatch.setattr(unpacking, "RAR_PROGRAMS", (program,))
    files = {"UCF-101/YoYo/v_YoYo_g01_c01.avi": BODY, "UCF-101/A (b)/x y+!.avi": b"two"}
    packed, out = archive(tmp_path, "a.rar", stored_rar(files)), tmp_path / "out"
    if subprocess.run([program.command, *program.names(packed)], capture_output=True).returncode != 0:
        with pytest.raises(DataError, match=f"{program.command} ends with .* Install unrar"):
            unpack(packed, out)
        pytest.skip(f"this {program.command} knows no .rar")
    assert unpack(packed, out) == sorted(files)
    assert {name: (out / name).read_bytes() for name in files} == files
    evil = archive(tmp_path, "evil.rar", stored_rar({"../evil.avi": b"x"}))
    with pytest.raises(
        DataError, match=r"which leads out of its folder|unsafe filename"
    ):  # found by us, or by unrar-free
        unpack(evil, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil.avi"))
    outer = stored_rar({"wave.rar": stored_rar({"wave/1.avi": b"1"})})
    assert unpack(archive(tmp_path, "h.rar", outer), tmp_path / "h", nested=True) == ["wave/1.avi"]
