"""One file from a server: resumed where it was cut off, checked, and never half in place.

Only https with verified certificates is spoken, but for servers on this machine; what an explicit ``insecure`` relaxes
is the certificate, and the caller says so. Downloads of gigabytes break off: the bytes so far stay in ``<name>.part``,
with what the server said of the file beside it, so that the rest is asked for and never glued to another version.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ssvid.data.fetch.sources import Source
from ssvid.errors import DataError
from ssvid.files import write_json
from ssvid.machine import package_version
from ssvid.progress import NamedProgress

_BLOCK = 1 << 18
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# What a server may answer when it is overloaded and will answer better later.
_PASSING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Connection:
    """How files are fetched, and who hears of it.

    insecure: accept any certificate. timeout_seconds: without a byte. attempts: in a row that bring no byte; between them
    pauses grow from ``pause_seconds``. progress: called with (bytes so far, bytes in all, name).
    """

    insecure: bool = False
    timeout_seconds: float = 60.0
    attempts: int = 5
    pause_seconds: float = 2.0
    progress: NamedProgress | None = None

    def session(self) -> requests.Session:
        """A session that asks a busy server again, and is led nowhere that is not safe."""
        retry = urllib3.Retry(
            total=self.attempts - 1,
            other=0,  # a certificate does not get better
            status_forcelist=_PASSING,
            raise_on_status=False,
            respect_retry_after_header=False,
            backoff_factor=self.pause_seconds,
        )
        session = _Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        session.headers.update({"User-Agent": f"ssvid/{package_version('ssvid')}", "Accept-Encoding": "identity"})
        if self.insecure:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the caller says it
        return session

    @property
    def verify(self) -> bool | str:
        """Which certificates are trusted: those of requests, or of the file that ``SSL_CERT_FILE`` names."""
        return not self.insecure and os.environ.get("SSL_CERT_FILE", True)


class _Session(requests.Session):
    """A redirect must not lead from https to something that can be tampered with."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target:
            require_safe(urllib.parse.urljoin(resp.url, target))
        return target


class _Cut(Exception):
    """The connection ended before the file did."""


def fetch(
    source: Source,
    folder: Path,
    connection: Connection | None = None,
    *,
    check_room: Callable[[int], None] | None = None,
) -> Path:
    """Bring a file into a folder, or go on with what an earlier call left there.

    Args:
        source: address and, where known, size; checksums are not looked at here.
        folder: it becomes ``folder/<name>``; until it is whole it is ``<name>.part``.
        check_room: called with the bytes that are still to come, before they come.

    Raises:
        DataError: the address, the certificate, the answer or the size is wrong, or the server broke off too often.
    """
    connection = connection or Connection()
    require_safe(source.url)
    target = folder / source.name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = _Part(source, folder / f"{source.name}.part")
    fruitless, most = 0, part.size
    with connection.session() as session:
        while True:
            time.sleep(connection.pause_seconds * fruitless)
            try:
                part.receive(session, connection, check_room)
                os.replace(part.path, target)
                part.note_path.unlink(missing_ok=True)
                return target
            except _Cut as cause:
                fruitless = 0 if part.size > most else fruitless + 1
                most = max(most, part.size)
                if fruitless == connection.attempts:
                    raise part.given_up(f"{fruitless} attempts without progress ({cause})") from cause


def require_safe(url: str) -> None:
    """Raise DataError for addresses that are neither https nor on this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise DataError(f"address ({url}) must begin with https://, so that nobody can put other data in its place.")


class _Part:
    """A file on its way: the bytes so far, and beside them what the server said of it."""

    def __init__(self, source: Source, path: Path) -> None:
        self.source, self.path = source, path
        self.note_path = path.with_name(f"{path.name}.json")
        if self.note().get("url") != source.url:
            path.unlink(missing_ok=True)  # nobody knows what it is a part of

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def note(self) -> dict[str, Any]:
        """What the server said: url, validator, total."""
        try:
            found = json.loads(self.note_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def receive(
        self, session: requests.Session, connection: Connection, check_room: Callable[[int], None] | None
    ) -> None:
        """One request: the whole file, or the rest of it."""
        with contextlib.closing(self._open(session, connection)) as answer:
            start = self._start_of(answer)
            if start is None:  # the server says that there is no more
                return
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            self._check_size(total)
            if check_room and total is not None:
                check_room(total - start)
            if start == 0:
                self.path.unlink(
                    missing_ok=True
                )  # before the note, which must never stand beside bytes of another version
                write_json(self.note_path, {"url": self.source.url, "validator": _validator(answer), "total": total})
            with open(self.path, "ab" if start else "wb") as file:
                for block in _blocks(answer):
                    file.write(block)
                    if connection.progress:
                        most = max(total or self.source.size_bytes or 0, file.tell())
                        connection.progress(file.tell(), most, self.source.name)
        if total is None and self.source.size_bytes not in (None, received := self.size):
            self.path.unlink()
            self._check_size(received)
        if total is not None and self.size < total:
            raise _Cut(f"{self.size:,} of {total:,} bytes came")

    def _open(self, session: requests.Session, connection: Connection) -> requests.Response:
        """The answer to the request for what is lacking; also the one that says that nothing is (416)."""
        headers = {"Range": f"bytes={self.size}-"} if self.size else {}
        if headers and (validator := self.note().get("validator")):
            headers["If-Range"] = validator  # another version is then sent from its start
        tried = f"{connection.attempts} attempts, the last: "
        try:
            timeout, verify = connection.timeout_seconds, connection.verify
            answer = session.get(self.source.url, headers=headers, stream=True, timeout=timeout, verify=verify)
        except requests.RequestException as cause:
            reason = re.sub(
                r".*Caused by (.*)\)$", r"\1", str(cause)
            )  # what a library has wrapped in errors of its own
            raise _untrusted(self.source, cause) or self.given_up(f"{tried}{reason}") from cause
        if answer.ok or answer.status_code == 416:
            return answer
        answer.close()
        problem = f"HTTP {answer.status_code} ({answer.reason})"
        if answer.status_code in _PASSING:
            raise self.given_up(tried + problem)
        raise DataError(
            f"{self.source.url} answers {problem}. It may have moved: see the page of the data set."
            f" {self.source.note}".rstrip()
        )

    def _start_of(self, answer: requests.Response) -> int | None:
        """The byte that the answer begins with; None where the part is the whole file already."""
        found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status_code == 416:
            if found and found[2] == str(self.size):
                return None
            self.path.unlink(missing_ok=True)
            raise _Cut("the part on disk was longer than the file; it begins anew")
        if answer.status_code != 206:
            return 0  # a server without ranges, or another version of the file: from the start
        known = self.note().get("total")
        if not found or found[1] != str(self.size) or (known is not None and found[2] not in ("*", str(known))):
            self.path.unlink()
            raise _Cut("the server sent another part than was asked for; it begins anew")
        return self.size

    def _check_size(self, total: int | None) -> None:
        known = self.source.size_bytes
        if known is None or total is None or total == known:
            return
        raise DataError(
            f"{self.source.url} announces {total:,} bytes; {known:,} are known of this file. The publisher has changed it, or"
            " an error page stands in its place: look at the address in a browser, and unpack by hand what you find good."
            f" {self.source.note}".rstrip()
        )

    def given_up(self, problem: str) -> DataError:
        """The error that ends it, with the way on."""
        if self.size:
            return DataError(
                f"{self.source.url} broke off after {self.size:,} bytes, {problem}. What has come is kept in {self.path}: run"
                " the same command again to go on."
            )
        return DataError(
            f"{self.source.url} cannot be reached: {problem}. Check the network, or fetch it elsewhere and put it at"
            f" {self.path.with_suffix('')}; then run the same command."
        )


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    """What comes, as it comes: what a connection brought before it was cut is kept to the last byte."""
    try:
        while block := answer.raw.read1(_BLOCK):
            yield block
    except (urllib3.exceptions.HTTPError, OSError) as cause:  # of the network
        raise _Cut(f"{type(cause).__name__}: {cause}") from cause


def _validator(answer: requests.Response) -> str:
    """What tells this version of the file from another: a strong entity tag, else the time of its last change."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _untrusted(source: Source, error: Exception) -> DataError | None:
    found = re.search(r"certificate verify failed: (.*?) \(_ssl", str(error))
    if not isinstance(error, requests.exceptions.SSLError) or not found:
        return None
    host = urllib.parse.urlsplit(source.url).hostname
    vouched = f"the checksum that {source.recorded_by} records" if source.sha256 or source.md5 else "no known checksum"
    return DataError(
        f"the certificate of {host} cannot be verified ({found[1]}). {source.note} Otherwise name the certificates that this"
        " machine trusts (SSL_CERT_FILE=FILE), or add --insecure to fetch it all the same: then nothing but"
        f" {vouched} tells {source.name} from a forgery."
    )


# ---- checksums


def hash_file(path: Path, algorithm: str = "sha256", progress: NamedProgress | None = None) -> str:
    """The hash of a whole file, hex."""
    digest, done, total = hashlib.new(algorithm), 0, path.stat().st_size
    with open(path, "rb") as file:
        while block := file.read(_BLOCK * 4):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done, total, f"checking {path.name}")
    return digest.hexdigest()


def verify(source: Source, path: Path, recorded: str, progress: NamedProgress | None = None) -> tuple[str, str]:
    """Check a file against the best that is known of it.

    Args:
        recorded: SHA-256 that an earlier download wrote down, or "".

    Returns:
        Its SHA-256, and in words what it was checked against.

    Raises:
        DataError: it is another file; it is left where it is, under a name that says so.
    """
    sha256 = hash_file(path, progress=progress)
    known = [(source.sha256, sha256, f"SHA-256 recorded by {source.recorded_by}")] if source.sha256 else []
    if source.md5:
        known.append((source.md5, hash_file(path, "md5"), f"MD5 recorded by {source.recorded_by}"))
    if recorded:
        known.append((recorded, sha256, "SHA-256 of the earlier download"))
    for wanted, found, what in known:
        if wanted != found:
            kept = path.with_name(f"{path.name}.refused")
            os.replace(path, kept)
            raise DataError(
                f"{source.name} is not the file that was expected: its checksum is {found}, the {what} is {wanted}. It was"
                f" fetched from {source.url} and kept as {kept}. Run the command again; if it stays so, the publisher has"
                " changed the file."
            )
    return sha256, " and ".join(what for *_, what in known) or "no known checksum"
