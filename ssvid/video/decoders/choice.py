"""Which decoders this machine has, which of them is right for a file, and how one is opened by name.

Nothing here imports a decoder before it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from ssvid.errors import DecodeError, SsvidError, did_you_mean
from ssvid.video.frame_folders import PICTURES

if TYPE_CHECKING:
    from ssvid.types import VideoInfo
    from ssvid.video.decoders.contract import VideoReader

# Measured by tests/benchmarks/bench_decoders.py, fastest first. Each is a file beside this one, which says the library's
# ``DISTRIBUTION`` and the ``WAY_OUT`` where it lacks, and has ``load()`` and ``open_reader(path, info, seek=...)``.
DECODERS_BY_SPEED = ("torchcodec", "pyav", "decord")


@dataclass(frozen=True)
class DecoderStatus:
    """One decoder here: its version (None: not installed), and what keeps it from working (None: nothing)."""

    version: str | None
    problem: str | None

    @property
    def works(self) -> bool:
        """Whether files can be opened with it."""
        return self.version is not None and self.problem is None


def way_out(name: str) -> str:
    """The command that installs a decoder that works."""
    return str(_file_of(name).WAY_OUT)


def _file_of(name: str) -> ModuleType:
    """The file of a decoder; it imports the library in ``load`` alone."""
    return importlib.import_module(f"ssvid.video.decoders.{name}")


def available_decoders() -> dict[str, DecoderStatus]:
    """The status of every decoder, in the order of ``DECODERS_BY_SPEED``. Imports those that are installed."""
    return {name: decoder_status(name) for name in DECODERS_BY_SPEED}


@cache
def decoder_status(name: str) -> DecoderStatus:
    """Try to import one decoder. Cached: a process asks once."""
    decoder = _file_of(name)
    if importlib.util.find_spec(decoder.DISTRIBUTION) is None:
        return DecoderStatus(None, f"not installed: {decoder.WAY_OUT}")
    try:
        version = importlib.metadata.version(decoder.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    try:
        decoder.load()
    except (ImportError, OSError, RuntimeError) as error:  # a shared library is missing or of the wrong version
        first_line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return DecoderStatus(version, f"cannot be imported ({first_line.strip()}). {decoder.WAY_OUT}")
    return DecoderStatus(version, None)


def resolve_decoder(decoder: str = "auto", decoders_ok: Sequence[str] = ()) -> str:
    """Turn ``auto`` into a name: the fastest decoder that works here and is right for the file.

    Args:
        decoder: ``auto`` or a name, which is checked and returned.
        decoders_ok: the decoders known to be right for the file. Empty: nothing is known, so PyAV. Of a folder of pictures
            it is ``pictures`` alone, which is taken whatever was asked for.

    Raises:
        SsvidError: the name is unknown, or the decoder does not work here.
    """
    if PICTURES in decoders_ok and not decoder_problem(decoder):
        return PICTURES
    if decoder == "auto":
        usable = (name for name in DECODERS_BY_SPEED if name in decoders_ok and decoder_status(name).works)
        return next(usable, "pyav")
    problem = decoder_problem(decoder)
    if problem:
        raise SsvidError(problem)
    return decoder


def decoder_problem(decoder: str, setting: str = "decoder", *, use: bool = True) -> str:
    """What is wrong with a decoder's name, in words with the way out; empty where nothing is.

    Args:
        setting: where the name stands. use: it is to be used here, so it must work here.
    """
    if decoder not in ("auto", *DECODERS_BY_SPEED):
        return f"{setting} ({decoder!r}) is not known. {did_you_mean(decoder, ('auto', *DECODERS_BY_SPEED))}"
    if not use or decoder == "auto" or decoder_status(decoder).works:
        return ""
    found = decoder_status(decoder).problem
    return f"{setting} ({decoder!r}) does not work here: {found}. Take auto, which uses what is installed."


def create_reader(name: str, path: str, info: VideoInfo, *, seek: bool = True) -> VideoReader:
    """Open a file with one decoder, or a folder with ``pictures``. ``seek`` False makes PyAV decode from the start; the others ignore it.

    Raises:
        DecodeError: the file has a ``gray_range``, which of the decoders PyAV's reader alone follows.
    """
    if info.gray_range and name not in ("pyav", PICTURES):
        raise DecodeError(path, f"decoder {name!r} stretches no gray values. Set loader.decoder=auto")
    reader: VideoReader = _file_of(name).open_reader(path, info, seek=seek)
    return reader
