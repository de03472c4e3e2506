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
from typing import TYPE_CHECKING

from ssvid.errors import DecodeError, SsvidError, did_you_mean

if TYPE_CHECKING:
    from ssvid.types import VideoInfo
    from ssvid.video.decoders.contract import VideoReader

# Measured by tests/benchmarks/bench_decoders.py, fastest first.
DECODERS_BY_SPEED = ("torchcodec", "pyav", "decord")

_DISTRIBUTIONS = {"torchcodec": "torchcodec", "decord": "decord", "pyav": "av"}
_WAYS_OUT = {
    "torchcodec": "pip install torchcodec, and the FFmpeg libraries of the system (Debian, Ubuntu: apt install ffmpeg)",
    "decord": "pip install decord (wheels exist for x86-64 Linux and Windows only)",
    "pyav": "pip install 'av>=17.1,<20'",
}


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
    return _WAYS_OUT[name]


def available_decoders() -> dict[str, DecoderStatus]:
    """The status of every decoder, in the order of ``DECODERS_BY_SPEED``. Imports those that are installed."""
    return {name: decoder_status(name) for name in DECODERS_BY_SPEED}


@cache
def decoder_status(name: str) -> DecoderStatus:
    """Try to import one decoder. Cached: a process asks once."""
    distribution = _DISTRIBUTIONS[name]
    if importlib.util.find_spec(distribution) is None:
        return DecoderStatus(None, f"not installed: {_WAYS_OUT[name]}")
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    try:
        importlib.import_module(f"ssvid.video.decoders.{name}")
    except (ImportError, OSError, RuntimeError) as error:  # a shared library is missing or of the wrong version
        first_line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return DecoderStatus(version, f"cannot be imported ({first_line.strip()}). {_WAYS_OUT[name]}")
    return DecoderStatus(version, None)


def resolve_decoder(decoder: str = "auto", decoders_ok: Sequence[str] = ()) -> str:
    """Turn ``auto`` into a name: the fastest decoder that works here and is right for the file.

    Args:
        decoder: ``auto`` or a name, which is checked and returned.
        decoders_ok: the decoders known to be right for the file. Empty: nothing is known, so PyAV.

    Raises:
        SsvidError: the name is unknown, or the decoder does not work here.
    """
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
    """Open a file with one decoder. ``seek`` False makes PyAV decode from the start; the others ignore it.

    Raises:
        DecodeError: the video has a ``gray_range``, which PyAV's reader alone follows.
    """
    if info.gray_range and name != "pyav":
        raise DecodeError(path, f"decoder {name!r} stretches no gray values. Set loader.decoder=auto")
    module = importlib.import_module(f"ssvid.video.decoders.{name}")
    if name == "pyav":
        return module.PyavReader(path, info, seek=seek)
    return module.TorchcodecReader(path, info) if name == "torchcodec" else module.DecordReader(path, info)
