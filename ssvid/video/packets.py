"""What the packets of a video stream say, in decoding order: times, places in the file, key frames. Nothing is decoded."""

from __future__ import annotations

from array import array

import av
import numpy as np

UNKNOWN = -(2**63)  # stands for a time or a place that a packet does not carry
_KEY, _DISCARD, _CORRUPT = 1, 2, 4


class PacketLog:
    """Notes down the packets of a stream as they are read; empty ones, which only flush, are left out.

    25 bytes a packet, so that a day of film fits. pts: presentation times in the stream's own unit. position: byte of the file
    at which its data, or a header of it, begins. These are ``UNKNOWN`` where the container does not say. size: bytes.
    """

    def __init__(self) -> None:
        self._pts, self._position, self._size = array("q"), array("q"), array("q")
        self._flags = bytearray()

    def __len__(self) -> int:
        return len(self._flags)

    def add(self, packet: av.Packet) -> None:
        """Note a packet down."""
        if not packet.size:
            return
        self._pts.append(_or_unknown(packet.pts))
        self._position.append(_or_unknown(packet.pos))
        self._size.append(packet.size)
        flags = _KEY * packet.is_keyframe + _DISCARD * packet.is_discard + _CORRUPT * packet.is_corrupt
        self._flags.append(flags)

    @property
    def pts(self) -> np.ndarray:
        """int64 (P,)."""
        return np.array(self._pts, np.int64)

    @property
    def position(self) -> np.ndarray:
        """int64 (P,)."""
        return np.array(self._position, np.int64)

    @property
    def size(self) -> np.ndarray:
        """int64 (P,)."""
        return np.array(self._size, np.int64)

    @property
    def is_key(self) -> np.ndarray:
        """Whether the container calls it a key frame, bool (P,)."""
        return self._has(_KEY)

    @property
    def is_discard(self) -> np.ndarray:
        """Whether its frame is decoded and not shown, bool (P,)."""
        return self._has(_DISCARD)

    @property
    def is_corrupt(self) -> np.ndarray:
        """Whether the demuxer calls it damaged, bool (P,)."""
        return self._has(_CORRUPT)

    @property
    def is_reordered(self) -> bool:
        """Whether packets come in another order than their frames are shown."""
        return bool((np.diff(self.pts) < 0).any())

    @property
    def has_leading(self) -> bool:
        """Whether frames are shown before the key frame that is stored before them: an open group of pictures."""
        pts, is_key = self.pts, self.is_key
        if not is_key.any():
            return False
        first = int(is_key.argmax())
        newest_key = np.maximum.accumulate(np.where(is_key, np.arange(len(pts)), first))[first:]
        return bool((pts[first:] < pts[newest_key]).any())

    def _has(self, flag: int) -> np.ndarray:
        return np.frombuffer(bytes(self._flags), np.uint8) & flag > 0


def _or_unknown(value: int | None) -> int:
    return UNKNOWN if value is None else value
