"""One's own video for layers: which of its frames, and where the objects are in them. All is checked before anything is fitted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssvid.errors import DataError, RecipeError, name_some
from ssvid.files import expanded
from ssvid.layers.clip import LayerClip
from ssvid.layers.masks.cutting import Box, cut_by_box
from ssvid.layers.masks.propagation import WORK_PX, propagate
from ssvid.layers.masks.reading import as_objects, read_mask, read_mask_folder
from ssvid.programs.footage import OpenedVideo, open_own_video
from ssvid.progress import Say
from ssvid.video.optical_flow import require_opencv, resized

MOST_FRAMES = 70  # more were never tried by anybody with such models
BACKGROUND = "background"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class LayerFootage:
    """A video and its objects. Exactly one of masks, masks_folder and boxes says where they are.

    masks: frame -> picture with the objects, painted (``ssvid.layers.masks.reading``); one to three frames are enough where the object moves
    calmly, they are carried to the others. masks_folder: a folder with a picture for each frame, as ``ssvid track`` and DAVIS write them.
    boxes: (object, frame, (x, y, width, height)), in which it is cut out by its colors; look at the contact sheet. names: of the
    objects in the order of their numbers, that in front first; () is object, or object1, object2. start, num_frames, stride_frames: which frames of the video.
    decoder: ``auto``, or one that is right for the file.
    """

    video: str | Path
    masks: Mapping[int, str | Path] = field(default_factory=dict)
    masks_folder: str | Path | None = None
    boxes: Sequence[tuple[str, int, Box]] = ()
    names: Sequence[str] = ()
    start: int = 0
    num_frames: int = 24
    stride_frames: int = 1
    decoder: str = "auto"


@dataclass(frozen=True)
class OpenedLayerFootage:
    """Footage that was found to be in order. numbers_T: which frames of the video. given: of the clip's frames, those whose masks were given.

    how: where the masks come from, in words.
    """

    video: OpenedVideo
    numbers_T: np.ndarray
    clip: LayerClip
    given: tuple[int, ...]
    how: str
    notes: tuple[str, ...] = ()


def open_layer_footage(footage: LayerFootage, say: Say = lambda text: None) -> OpenedLayerFootage:
    """The frames, and a mask of every object in each; masks are carried where they are not given.

    Raises:
        DataError: a mask, a box or the window does not fit the video, or the video cannot be read. RecipeError: objects are given in no way, or
            in several, or are named badly. SsvidError: OpenCV is not installed.
    """
    require_opencv()
    _check_one_way(footage)
    video = open_own_video(footage.video, footage.decoder)
    numbers_T, notes = _window(footage, video)
    frames_THWC = read_frames(video, numbers_T)
    known, names, absent_is_known, how = _known(footage, video, numbers_T, frames_THWC)
    given = tuple(sorted(known))
    if len(given) < len(numbers_T):
        say(f"carrying masks from {len(given)} of {len(numbers_T)} frames to all")
    masks_NTHW = propagate(frames_THWC, known, absent_is_known=absent_is_known)
    clip = LayerClip(
        frames_THWC, masks_NTHW, names, video.fps / footage.stride_frames, int(numbers_T[0]), footage.stride_frames
    )
    return OpenedLayerFootage(video, numbers_T, clip, given, how, (*notes, *_filled(footage, given, numbers_T)))


def read_frames(video: OpenedVideo, numbers_T: np.ndarray) -> np.ndarray:
    """These frames of a video, uint8 THWC.

    Raises:
        DecodeError: one cannot be read.
    """
    with closing(video.frames(numbers_T)) as frames:
        return np.stack(list(frames))


def object_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """The names of so many objects; those that are usual where none are given.

    Raises:
        RecipeError: there are more or fewer names, one is there twice, or is none that a file can have.
    """
    usual = ("object",) if count == 1 else tuple(f"object{number}" for number in range(1, count + 1))
    chosen = tuple(names) or usual
    if len(chosen) != count:
        raise RecipeError(
            f"names ({', '.join(chosen)}) must be {count}, one for each object. Leave them out for {', '.join(usual)}."
        )
    wrong = [name for name in chosen if not _NAME.fullmatch(name) or name == BACKGROUND]
    if wrong or len(set(chosen)) < count:
        why = f"{wrong[0]!r} is none" if wrong else "one is there twice"
        raise RecipeError(
            f"names ({', '.join(chosen)}) must be of letters, numbers, - and _, each another one, and none {BACKGROUND!r}; {why}."
        )
    return chosen


def _check_one_way(footage: LayerFootage) -> None:
    ways = {"--mask": bool(footage.masks), "--masks": footage.masks_folder is not None, "--box": bool(footage.boxes)}
    given = [way for way, is_given in ways.items() if is_given]
    if len(given) != 1:
        raise RecipeError(
            f"objects must be given in one way, and {' and '.join(given) or 'none'} is given. Paint the object in one frame (white on black, or with "
            "alpha) and give --mask FILE; or give --masks FOLDER with a mask for each frame; or --box FRAME=X,Y,WIDTH,HEIGHT."
        )


def _window(footage: LayerFootage, video: OpenedVideo) -> tuple[np.ndarray, list[str]]:
    """Which frames of the video, and what to know of it."""
    start, count, stride, total = footage.start, footage.num_frames, footage.stride_frames, video.num_frames
    if count > MOST_FRAMES:
        raise DataError(
            f"frames ({count}) must be at most {MOST_FRAMES}: such models are made for short clips. Take every second frame with --stride 2, or parts."
        )
    if count < 2 or stride < 1 or start < 0:
        raise DataError(
            f"frames ({count}) must be at least 2, --stride ({stride}) at least 1 and --start ({start}) at least 0: layers are told apart by how "
            "they move."
        )
    numbers_T = start + stride * np.arange(count)
    numbers_T = numbers_T[numbers_T < total]
    if len(numbers_T) < 2:
        raise DataError(
            f"{video.path} has {total} frames, and from frame {start} on with a stride of {stride} {len(numbers_T)} of them can be taken; at least 2 "
            "are needed: layers are told apart by how they move. Take a smaller --start or --stride, or a longer video."
        )
    notes = [] if len(numbers_T) == count else [f"the video ends early: {len(numbers_T)} frames are taken, not {count}"]
    return numbers_T, notes


def _known(
    footage: LayerFootage, video: OpenedVideo, numbers_T: np.ndarray, frames_THWC: np.ndarray
) -> tuple[dict[int, np.ndarray], tuple[str, ...], bool, str]:
    """Frame of the clip -> bool NHW where it is given; names; whether an object that is not in one is not there; in words."""
    if footage.boxes:
        known, names = _of_boxes(footage, numbers_T, frames_THWC)
        return known, names, False, f"cut out of {len(known)} boxes by their colors, and carried on"
    height, width = video.size_px
    place = {int(number): t for t, number in enumerate(numbers_T)}
    if footage.masks_folder is not None:
        folder = Path(expanded(footage.masks_folder))
        read = {place[f]: ids for f, ids in read_mask_folder(folder, height, width).items() if f in place}
        if not any(ids.any() for ids in read.values()):
            raise DataError(
                f"{folder} has no object in the frames that are taken, {_told(numbers_T)}. Take others with --start, or other masks."
            )
        how = f"{len(read)} masks of {folder.name}"
    else:
        _check_in_window(footage.masks, numbers_T)
        read = {place[f]: read_mask(Path(expanded(path)), height, width) for f, path in footage.masks.items()}
        how = f"painted in frame {', '.join(str(f) for f in sorted(footage.masks))}, and carried on"
    numbers, known = as_objects(read)
    return known, object_names(footage.names, len(numbers)), footage.masks_folder is not None, how


def _of_boxes(
    footage: LayerFootage, numbers_T: np.ndarray, frames_THWC: np.ndarray
) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
    _check_in_window([frame for _, frame, _ in footage.boxes], numbers_T)
    labels = list(dict.fromkeys(name for name, _, _ in footage.boxes))
    names = object_names(footage.names or [name for name in labels if name], len(labels))
    height, width = frames_THWC.shape[1:3]
    known: dict[int, np.ndarray] = {}
    for label, frame, box in footage.boxes:
        t = int(np.flatnonzero(numbers_T == frame)[0])
        masks_NHW = known.setdefault(t, np.zeros((len(names), height, width), bool))
        masks_NHW[labels.index(label)] = _cut_small(frames_THWC[t], box)
    return known, names


def _cut_small(frame_HWC: np.ndarray, box: Box) -> np.ndarray:
    """The object in a box, cut where frames are as small as those that masks are carried through."""
    height, width = frame_HWC.shape[:2]
    scale = min(1.0, WORK_PX / min(height, width))
    if scale == 1.0:
        return cut_by_box(frame_HWC, box)
    x, y, wide, high = box
    if x < 0 or y < 0 or wide < 2 or high < 2 or x + wide > width or y + high > height:
        return cut_by_box(frame_HWC, box)  # which says what is wrong, in px of the video
    small_HWC = resized(frame_HWC, round(height * scale), round(width * scale))
    edges = [round(scale * value) for value in (x, y, x + wide, y + high)]
    found_HW = cut_by_box(small_HWC, (edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]))
    large_HW: np.ndarray = resized(found_HW.astype(np.float32), height, width) >= 0.5
    return large_HW


def _check_in_window(frames: Sequence[int] | Mapping[int, object], numbers_T: np.ndarray) -> None:
    taken = set(numbers_T.tolist())
    for frame in frames:
        if frame not in taken:
            nearest = int(numbers_T[np.abs(numbers_T - frame).argmin()])
            raise DataError(
                f"an object is given in frame {frame}, and the frames that are taken are {_told(numbers_T)}. Give it in one of these, the nearest is "
                f"{nearest}; or take others with --start, --frames and --stride."
            )


def _told(numbers_T: np.ndarray) -> str:
    every = f", every {numbers_T[1] - numbers_T[0]}th" if numbers_T[1] - numbers_T[0] > 1 else ""
    return f"{numbers_T[0]} to {numbers_T[-1]}{every}"


def _filled(footage: LayerFootage, given: tuple[int, ...], numbers_T: np.ndarray) -> Iterator[str]:
    if footage.masks_folder is not None and len(given) < len(numbers_T):
        missing = [str(number) for t, number in enumerate(numbers_T.tolist()) if t not in given]
        yield f"the folder has no mask of frame {name_some(missing, 8)}: they were carried from their neighbors"
    if footage.boxes:
        yield "masks were cut out of boxes by their colors, which fails often: look at masks.png"
