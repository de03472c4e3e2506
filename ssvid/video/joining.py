"""Pictures to file: the frames of a clip that lie in a folder become one video, without loss."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from PIL import ExifTags, Image, UnidentifiedImageError

from ssvid.errors import DataError
from ssvid.files import appearing_whole

# What a video file can hold as it is; other pictures are turned into PNG, which loses nothing either.
_COPIED = (".jpg", ".jpeg", ".png")
_MIRRORED = (2, 4, 5, 7)


def join_pictures(pictures: Sequence[Path], out: Path, fps: float) -> int:
    """Write pictures as the frames of one video (.mov), in the order given. The file appears when it is complete.

    JPEG and PNG are copied byte for byte into the video and never decoded; others are kept as PNG.

    Returns:
        The number of frames.

    Raises:
        DataError: a picture cannot be read, has another size than the first or is mirrored by its EXIF orientation, or
            FFmpeg refuses.
    """
    size = _size(pictures[0])
    other = next((picture for picture in pictures if _size(picture) != size), None)
    if other is not None:
        raise DataError(
            f"{other} has {'x'.join(map(str, _size(other)))} pixels and {pictures[0].name} {'x'.join(map(str, size))}; all frames "
            "of a clip must have one size. Move pictures of another size out of the folder."
        )
    try:
        with appearing_whole(out) as partial:
            _mux(pictures, partial, Fraction(fps).limit_denominator(1001))
    except av.error.FFmpegError as error:
        raise DataError(
            f"cannot join the pictures of {pictures[0].parent}: {type(error).__name__}: {error}."
        ) from error
    return len(pictures)


def _size(picture: Path) -> tuple[int, int]:
    """Width and height as shown, by the EXIF orientation."""
    try:
        with Image.open(picture) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            size = image.size if orientation < 5 else image.size[::-1]
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{picture} cannot be read as a picture ({error}). Remove it, or fetch it again.") from error
    if orientation in _MIRRORED:
        raise DataError(
            f"{picture} is mirrored by its EXIF orientation ({orientation}), which decoders of videos cannot follow. Read the "
            "folder as it is, or save the pictures upright."
        )
    return size


def _mux(pictures: Sequence[Path], partial: Path, fps: Fraction) -> None:
    with (
        av.open(io.BytesIO(_content(pictures[0]))) as first,
        av.open(str(partial.absolute()), "w") as container,
    ):
        stream = container.add_stream_from_template(first.streams.video[0])
        stream.time_base = 1 / fps
        stream.codec_context.framerate = fps
        for number, picture in enumerate(pictures):
            packet = av.Packet(_content(picture))
            packet.stream, packet.time_base = stream, 1 / fps
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)


def _content(picture: Path) -> bytes:
    if picture.suffix.lower() in _COPIED:
        return picture.read_bytes()
    with Image.open(picture) as image:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
