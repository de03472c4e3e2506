"""Whether a decoder decodes: three frames of known gray, from a file that is made for it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import numpy as np

from ssvid.types import VideoInfo
from ssvid.video.decoders.choice import create_reader

_GRAYS = (60, 120, 180)  # luma of each frame
_SIZE_PX = 64
_CLOSE = 6.0  # of 255, after compression and conversion of the color range


def decoding_problem(name: str) -> str | None:
    """What goes wrong when a decoder that can be imported reads a small video; None: nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.mp4"
        try:
            _write(path)
            with create_reader(name, str(path), VideoInfo(str(path), len(_GRAYS), 25.0, _SIZE_PX, _SIZE_PX)) as reader:
                frames_TCHW = reader.frames_at(np.arange(len(_GRAYS)))
        except Exception as error:  # whatever it is, it is the answer
            return f"decodes nothing ({type(error).__name__}: {error})"
    seen = frames_TCHW.float().mean((1, 2, 3)).tolist()
    expected = [(luma - 16) * 255 / 219 for luma in _GRAYS]
    if np.abs(np.subtract(seen, expected)).max() > _CLOSE:
        return f"decodes wrongly (grays of {expected} come out as {seen})"
    return None


def _write(path: Path) -> None:
    # By what every version of PyAV has, and not by this project's writer: the decoder is on trial.
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.height = stream.width = _SIZE_PX
        stream.pix_fmt = "yuv420p"
        for luma in _GRAYS:
            frame = av.VideoFrame(_SIZE_PX, _SIZE_PX, "yuv420p")
            for plane, value in zip(frame.planes, (luma, 128, 128), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
