"""One file from a server: resumed where it was cut off, checked, and never half in place.

Only https with verified certificates is spoken, but for servers on this machine; what an explicit ``insecure`` relaxes
is the certificate, and the caller says so. Downloads of gigabytes break off: the bytes so far stay in ``<name>.part``,
with what the server said of the file beside it, so that the rest is asked for and never glued to another version.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
class Patience:
    """How long a server is borne with. timeout_seconds: without a byte. attempts: in a row that bring no byte."""

    timeout_seconds: float = 60.0
    attempts: int = 5
    pause_seconds: float = 2.0


class _Cut(Exception):
    """The connection ended before the file did, or the server could not answer now."""


def fetch(
    source: Source,
    folder: Path,
    *,
    insecure: bool = False,
    patience: Patience | None = None,
    progress: Progress | None = None,
    check_room: Callable[[int], None] | None = None,
) -> Path:
    """Bring a file into a folder, or go on with what an earlier call left there.

    Args:
        source: address and, where known, size; checksums are not looked at here.
        folder: it becomes ``folder/<name>``; until it is whole it is ``<name>.part``.
        insecure: accept any certificate.
        progress: called with (bytes so far, bytes in all, name).
        check_room: called with the bytes that are still to come, before they come.

    Raises:
        DataError: the address, the certificate, the answer or the size is wrong, or the server broke off too often.
    """
    patience = patience or Patience()
    require_safe(source.url)
    target, part = folder / source.name, folder / f"{source.name}.part"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    if _read_note(part).get("url") != source.url:
        part.unlink(missing_ok=True)  # nobody knows what it is a part of
    opener = _opener(insecure)
    fruitless, problem, most = 0, "", _size(part)
    while fruitless < patience.attempts:
        if fruitless:
            time.sleep(patience.pause_seconds * fruitless)
        try:
            _receive(source, part, opener, patience, progress, check_room)
            os.replace(part, target)
            _note(part).unlink(missing_ok=True)
            return target
        except _Cut as cause:
            problem = str(cause)
            fruitless = 0 if _size(part) > most else fruitless + 1
            most = max(most, _size(part))
    if not _size(part):
        raise DataError(
            f"{source.url} cannot be reached: {patience.attempts} attempts, the last: {problem}. Check the network, or fetch"
            f" it elsewhere and put it at {target}; then run the same command."
        )
    raise DataError(
        f"{source.url} broke off after {_size(part):,} bytes, {patience.attempts} times in vain ({problem}). What has come is"
        f" kept in {part}: run the same command again to go on."
    )


def require_safe(url: str) -> None:
    """Raise DataError for addresses that are neither https nor on this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise DataError(f"address ({url}) must begin with https://, so that nobody can put other data in its place.")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect must not lead from https to something that can be tampered with."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(insecure: bool) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _SafeRedirects())
    opener.addheaders = [("User-Agent", f"ssvid/{package_version('ssvid') or 'unknown'}")]
    return opener


def _receive(
    source: Source,
    part: Path,
    opener: urllib.request.OpenerDirector,
    patience: Patience,
    progress: Progress | None,
    check_room: Callable[[int], None] | None,
) -> None:
    """One request: the whole file, or the rest of it."""
    with contextlib.closing(_open(source, part, opener, patience)) as answer:
        start = _start_of(answer, part, _size(part))
        if start is None:  # the server says that there is no more
            return
        total = _total(answer, start)
        _check_size(source, total)
        if check_room and total is not None:
            check_room(total - start)
        if start == 0:
            write_json(_note(part), {"url": source.url, "validator": _validator(answer), "total": total})
        with open(part, "ab" if start else "wb") as file:
            received = _copy(answer, file, start, total or source.size_bytes or 0, source.name, progress)
    if total is not None and received < total:
        raise _Cut(f"{received:,} of {total:,} bytes came")
    if total is None and source.size_bytes not in (None, received):
        part.unlink()
        _check_size(source, received)


def _open(source: Source, part: Path, opener: urllib.request.OpenerDirector, patience: Patience) -> Any:
    """The answer to the request for what the part lacks; also the one that says that it lacks nothing."""
    try:
        return opener.open(_request(source, part, _size(part)), timeout=patience.timeout_seconds)
    except urllib.error.HTTPError as cause:
        if cause.code == 416:
            return cause
        cause.close()
        if cause.code in _PASSING:
            raise _Cut(f"HTTP {cause.code} {cause.reason}") from cause
        raise DataError(
            f"{source.url} answers HTTP {cause.code} ({cause.reason}). It may have moved: see the page of the data set."
            f" {source.note}".rstrip()
        ) from cause
    except urllib.error.URLError as cause:
        if isinstance(cause.reason, ssl.SSLCertVerificationError):
            raise _untrusted(source, cause.reason) from cause
        raise _Cut(str(cause.reason)) from cause
    except (OSError, http.client.HTTPException) as cause:
        raise _Cut(f"{type(cause).__name__}: {cause}") from cause


def _request(source: Source, part: Path, start: int) -> urllib.request.Request:
    request = urllib.request.Request(urllib.parse.quote(source.url, safe=":/?&=%'()~,+"))
    request.add_header("Accept-Encoding", "identity")
    if start:
        request.add_header("Range", f"bytes={start}-")
        validator = _read_note(part).get("validator")
        if validator:
            request.add_header("If-Range", validator)  # another version is then sent from its start
    return request


def _start_of(answer: Any, part: Path, start: int) -> int | None:
    """The byte that the answer begins with; None where the part is the whole file already."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range") or "")
    if answer.status == 416:
        if found and found[2] == str(start):
            return None
        part.unlink(missing_ok=True)
        raise _Cut("the part on disk was longer than the file; it begins anew")
    if answer.status != 206:
        return 0  # a server without ranges, or another version of the file: from the start
    known = _read_note(part).get("total")
    if not found or found[1] != str(start) or (known is not None and found[2] not in ("*", str(known))):
        part.unlink()
        raise _Cut("the server sent another part than was asked for; it begins anew")
    return start


def _total(answer: Any, start: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return start + int(length) if length and length.isdecimal() else None


def _check_size(source: Source, total: int | None) -> None:
    if source.size_bytes is not None and total is not None and total != source.size_bytes:
        raise DataError(
            f"{source.url} announces {total:,} bytes; {source.size_bytes:,} are known of this file. The publisher has changed"
            " it, or an error page stands in its place: look at the address in a browser, and unpack by hand what you find"
            f" good. {source.note}".rstrip()
        )


def _copy(answer: Any, file: IO[bytes], start: int, total: int, name: str, progress: Progress | None) -> int:
    done = start
    while block := _read(answer):
        file.write(block)
        done += len(block)
        if progress:
            progress(done, max(total, done), name)
    return done


def _read(answer: Any) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, http.client.HTTPException) as cause:  # of the network; what the disk says is not caught here
        raise _Cut(f"{type(cause).__name__}: {cause}") from cause


def _untrusted(source: Source, reason: ssl.SSLCertVerificationError) -> DataError:
    host = urllib.parse.urlsplit(source.url).hostname
    vouched = f"the checksum that {source.recorded_by} records" if source.sha256 or source.md5 else "no known checksum"
    return DataError(
        f"the certificate of {host} cannot be verified ({reason.verify_message}). {source.note} Otherwise mend the"
        " certificates of this machine (SSL_CERT_FILE), or add --insecure to fetch it all the same: then nothing but"
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


def _validator(answer: Any) -> str:
    """What tells this version of the file from another: a strong entity tag, else the time of its last change."""
    tag = answer.headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified") or ""


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
