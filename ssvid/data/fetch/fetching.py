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

Progress = Callable[[int, int, str], None]

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
    progress: Progress | None = None

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
    target, part = folder / source.name, folder / f"{source.name}.part"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    if _read_note(part).get("url") != source.url:
        part.unlink(missing_ok=True)  # nobody knows what it is a part of
    fruitless, most = 0, _size(part)
    with connection.session() as session:
        while True:
            time.sleep(connection.pause_seconds * fruitless)
            try:
                _receive(source, part, session, connection, check_room)
                os.replace(part, target)
                _note(part).unlink(missing_ok=True)
                return target
            except _Cut as cause:
                fruitless = 0 if _size(part) > most else fruitless + 1
                most = max(most, _size(part))
                if fruitless == connection.attempts:
                    raise _given_up(source, part, f"{fruitless} attempts without progress ({cause})") from cause


def require_safe(url: str) -> None:
    """Raise DataError for addresses that are neither https nor on this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise DataError(f"address ({url}) must begin with https://, so that nobody can put other data in its place.")


def _given_up(source: Source, part: Path, problem: str) -> DataError:
    if _size(part):
        return DataError(
            f"{source.url} broke off after {_size(part):,} bytes, {problem}. What has come is kept in {part}: run the same"
            " command again to go on."
        )
    return DataError(
        f"{source.url} cannot be reached: {problem}. Check the network, or fetch it elsewhere and put it at"
        f" {part.with_suffix('')}; then run the same command."
    )


def _receive(
    source: Source,
    part: Path,
    session: requests.Session,
    connection: Connection,
    check_room: Callable[[int], None] | None,
) -> None:
    """One request: the whole file, or the rest of it."""
    with contextlib.closing(_open(source, part, session, connection)) as answer:
        start = _start_of(answer, part, _size(part))
        if start is None:  # the server says that there is no more
            return
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        _check_size(source, total)
        if check_room and total is not None:
            check_room(total - start)
        if start == 0:
            write_json(_note(part), {"url": source.url, "validator": _validator(answer), "total": total})
        with open(part, "ab" if start else "wb") as file:
            for block in _blocks(answer):
                file.write(block)
                if connection.progress:
                    connection.progress(file.tell(), max(total or source.size_bytes or 0, file.tell()), source.name)
    received = _size(part)
    if total is not None and received < total:
        raise _Cut(f"{received:,} of {total:,} bytes came")
    if total is None and source.size_bytes not in (None, received):
        part.unlink()
        _check_size(source, received)


def _open(source: Source, part: Path, session: requests.Session, connection: Connection) -> requests.Response:
    """The answer to the request for what the part lacks; also the one that says that it lacks nothing (416)."""
    headers = {"Range": f"bytes={_size(part)}-"} if _size(part) else {}
    if headers and (validator := _read_note(part).get("validator")):
        headers["If-Range"] = validator  # another version is then sent from its start
    tried = f"{connection.attempts} attempts, the last: "
    try:
        timeout, verify = connection.timeout_seconds, connection.verify
        answer = session.get(source.url, headers=headers, stream=True, timeout=timeout, verify=verify)
    except requests.RequestException as cause:
        raise _untrusted(source, cause) or _given_up(source, part, f"{tried}{_reason(cause)}") from cause
    if answer.ok or answer.status_code == 416:
        return answer
    answer.close()
    problem = f"HTTP {answer.status_code} ({answer.reason})"
    if answer.status_code in _PASSING:
        raise _given_up(source, part, tried + problem)
    raise DataError(
        f"{source.url} answers {problem}. It may have moved: see the page of the data set. {source.note}".rstrip()
    )


def _reason(error: Exception) -> str:
    """What a library has wrapped in errors of its own."""
    return re.sub(r".*Caused by (.*)\)$", r"\1", str(error))


def _start_of(answer: requests.Response, part: Path, start: int) -> int | None:
    """The byte that the answer begins with; None where the part is the whole file already."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status_code == 416:
        if found and found[2] == str(start):
            return None
        part.unlink(missing_ok=True)
        raise _Cut("the part on disk was longer than the file; it begins anew")
    if answer.status_code != 206:
        return 0  # a server without ranges, or another version of the file: from the start
    known = _read_note(part).get("total")
    if not found or found[1] != str(start) or (known is not None and found[2] not in ("*", str(known))):
        part.unlink()
        raise _Cut("the server sent another part than was asked for; it begins anew")
    return start


def _check_size(source: Source, total: int | None) -> None:
    if source.size_bytes is not None and total is not None and total != source.size_bytes:
        raise DataError(
            f"{source.url} announces {total:,} bytes; {source.size_bytes:,} are known of this file. The publisher has changed"
            " it, or an error page stands in its place: look at the address in a browser, and unpack by hand what you find"
            f" good. {source.note}".rstrip()
        )


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    """What comes, as it comes: what a connection brought before it was cut is kept to the last byte."""
    try:
        while block := answer.raw.read1(_BLOCK):
            yield block
    except (urllib3.exceptions.HTTPError, OSError) as cause:  # of the network
        raise _Cut(f"{type(cause).__name__}: {cause}") from cause


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


# ---- the part on disk


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, Any]:
    try:
        found = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _validator(answer: requests.Response) -> str:
    """What tells this version of the file from another: a strong entity tag, else the time of its last change."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


# ---- checksums


def hash_file(path: Path, algorithm: str = "sha256", progress: Progress | None = None) -> str:
    """The hash of a whole file, hex."""
    digest, done, total = hashlib.new(algorithm), 0, path.stat().st_size
    with open(path, "rb") as file:
        while block := file.read(_BLOCK * 4):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done, total, f"checking {path.name}")
    return digest.hexdigest()


def verify(source: Source, path: Path, recorded: str, progress: Progress | None = None) -> tuple[str, str]:
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
