"""Frames one after the other: each once, the last that comes to a place, and the file given back when nobody asks on."""

from collections.abc import Generator

import numpy as np

from ssvid.types import VideoInfo
from ssvid.video.decoders.contract import VideoReader, frames_in_turn


class Buffered(VideoReader):
    """Hands out one and the same buffer; the second place comes twice."""

    closed = 0

    def _decode_sorted(self, indices: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        buffer_HWC = np.zeros((2, 4, 3), np.uint8)
        try:
            for place, value in ((0, 10), (1, 20), (1, 21), (2, 30)):
                buffer_HWC[:] = value
                yield place, buffer_HWC
        finally:
            self.closed += 1


def test_the_last_of_a_place_counts_and_frames_are_not_overwritten(tmp_path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"any")
    reader = Buffered(tmp_path / "x.mp4", VideoInfo(str(tmp_path / "x.mp4"), 3, 25.0, 2, 4))
    frames = list(frames_in_turn(reader, np.arange(3)))
    assert [np.unique(frame_HWC).tolist() for frame_HWC in frames] == [[10], [21], [30]]


def test_who_asks_no_further_gives_the_file_back(tmp_path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"any")
    reader = Buffered(tmp_path / "x.mp4", VideoInfo(str(tmp_path / "x.mp4"), 3, 25.0, 2, 4))
    frames = frames_in_turn(reader, np.arange(3))
    assert next(frames)[0, 0, 0] == 10 and not reader.closed
    frames.close()
    assert reader.closed == 1
