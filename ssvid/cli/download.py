"""``ssvid data download``: fetch a data set from its official address."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import Verbs

_DOWNLOAD = """\
Fetches a data set from its official address, checks it and unpacks it:

{data_sets}

Interrupted, it goes on where it stopped when it is called again. download.json in the folder says what came from where,
with its SHA-256. The terms of use are those of the data set: read its page first.
"""
_EPILOG = """\
examples:
  ssvid data download ucf101 data/ucf101
  ssvid data download ucf101 data/ucf101 --mirror
  ssvid data download kinetics data/k400 --annotations-only
  ssvid data download kinetics data/k700 --version 700 --split val
"""


def add_download(verbs: Verbs) -> None:
    """Add the verb below ``ssvid data``."""
    parser = verbs.add(
        "download", run, "fetch a data set, such as UCF101, HMDB51, DAVIS or Kinetics", _describe, _EPILOG
    )
    parser.add_argument("name", metavar="NAME", help="of a data set above")
    parser.add_argument("folder", metavar="FOLDER", help="where the data set shall lie")
    parser.add_argument("--annotations-only", action="store_true", help="the split files or tables, no videos")
    parser.add_argument(
        "--mirror", action="store_true", help="of ucf101: one zip from THUMOS'14; needs no program for .rar"
    )
    parser.add_argument("--version", default="", help="of kinetics: 400, 600 or 700 (default: 400)")
    parser.add_argument(
        "--split", action="append", help="of kinetics: train, val, test; may be repeated (default: train and val)"
    )
    parser.add_argument("--keep-archives", action="store_true", help="keep the archives after unpacking")
    parser.add_argument("--insecure", action="store_true", help="accept a certificate that cannot be verified")


def _describe() -> str:
    from ssvid.data.readers.shelf import list_readers

    found = [reader for reader in list_readers() if reader.download]
    return _DOWNLOAD.format(data_sets=terminal.columns([(reader.name, reader.about) for reader in found], indent="  "))


@contextlib.contextmanager
def _megabytes() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar of megabytes for each file in turn."""
    with contextlib.ExitStack() as stack:
        shown: list[Any] = ["", None]

        def report(done: int, total: int, name: str) -> None:
            if name != shown[0]:
                stack.close()  # the bar of the file before
                shown[:] = name, stack.enter_context(terminal.progress(f"{name}, MB"))
            shown[1](-(-done // 1_000_000), -(-total // 1_000_000))

        yield report


def run(args: argparse.Namespace) -> None:
    """Fetch it, showing the megabytes of each file, and print what came."""
    from ssvid.data.fetch.downloading import download
    from ssvid.data.fetch.fetching import Connection
    from ssvid.data.fetch.sources import Order

    with _megabytes() as report:
        result = download(
            args.name,
            args.folder,
            Order(args.version, tuple(args.split or ()), args.annotations_only, args.mirror),
            Connection(insecure=args.insecure, progress=report),
            keep_archives=args.keep_archives,
            say=terminal.say,
        )
    terminal.print_result(result, as_json=args.json)
