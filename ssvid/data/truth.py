"""What is known about the frames of a video beside its label: masks of objects or parts, joints of a body, point tracks,
the phase of an action.

The manifest's column ``truth`` names the file or folder. Its kind is told by its content:

* a folder of PNGs: masks (DAVIS, YouTube-VOS; VIP, whose folder lies in one called ``Category_ids``);
* ``.mat``: the joints of JHMDB;
* ``.npz``: what ``ssvid data synth`` and ``ssvid data tapvid`` write: tracks of points (``tracks``, ``visible``), with or
  without ``masks``; the number of the phase that each frame is of (``phase``), with or without them.

Coordinates of points are in pixels of the video: x to the right, y down, the center of the first pixel at (0, 0).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssvid.data.manifest import VideoRow, row_id
from ssvid.data.masks import MASK_EXTENSIONS, VOID, Masks
from ssvid.errors import DataError, name_some
from ssvid.video.frame_folders import in_order, list_frames

__all__ = [
    "JHMDB_JOINTS",
    "VIP_PARTS",
    "VOID",
    "Joints",
    "Masks",
    "Phases",
    "Tracks",
    "Truth",
    "read_truth",
    "truth_sha256",
]

# The order of the columns of pos_img, as the data set's README_joint_positions.txt has it.
JHMDB_JOINTS = (
    *("neck", "belly", "face", "right shoulder", "left shoulder", "right hip", "left hip", "right elbow", "left elbow"),
    *("right knee", "left knee", "right wrist", "left wrist", "right ankle", "left ankle"),
)
# In the order of the published evaluation (eval_vip.py of TimeCycle); the score does not depend on the names.
VIP_PARTS = (
    *(
        "background",
        "hat",
        "hair",
        "sun-glasses",
        "upper-clothes",
        "dress",
        "coat",
        "socks",
        "pants",
        "gloves",
        "scarf",
    ),
    *("skirt", "torso-skin", "face", "right-arm", "left-arm", "right-leg", "left-leg", "right-shoe", "left-shoe"),
)
PARTS_FOLDER = "Category_ids"  # of VIP; what lies in it are parts and not objects
_WAY_OUT = "Fix the file, or write the table again with: ssvid data index."


@dataclass(frozen=True)
class Joints:
    """The joints of one body.

    points_TJ2: float64, x and y in pixels, the center of the first pixel at (0, 0); NaN where unknown. visible_TJ: bool,
    known and inside the frame. names: of the joints.
    """

    points_TJ2: np.ndarray
    visible_TJ: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Tracks:
    """Points that stick to what is seen.

    points_TQ2: float64, x and y in pixels of the video, the center of the first pixel at (0, 0). visible_TQ: bool, inside
    the frame and not hidden.
    """

    points_TQ2: np.ndarray
    visible_TQ: np.ndarray


@dataclass(frozen=True)
class Phases:
    """Which phase of its action each frame is of. number_T: int64 (T,), from 0, the same for all videos of an action."""

    number_T: np.ndarray


@dataclass(frozen=True)
class Truth:
    """All that is known of the frames of one video; None where nothing is."""

    masks: Masks | None = None
    joints: Joints | None = None
    tracks: Tracks | None = None
    phases: Phases | None = None

    def cut(self, start: int, end: int) -> Truth:
        """What is known of frames [start, end), counted from start."""
        masks, joints, tracks, part = self.masks, self.joints, self.tracks, slice(start, end)
        return Truth(
            masks.cut(start, end) if masks else None,
            Joints(joints.points_TJ2[part], joints.visible_TJ[part], joints.names) if joints else None,
            Tracks(tracks.points_TQ2[part], tracks.visible_TQ[part]) if tracks else None,
            Phases(self.phases.number_T[part]) if self.phases else None,
        )


def read_truth(root: str | Path, row: VideoRow) -> Truth:
    """What the table knows of a video's frames; of its window, where the row is one.

    Args:
        root: the folder that the table's paths are relative to.

    Returns:
        Nothing known where ``row.truth`` is "". Masks in pictures are read when they are asked for.

    Raises:
        DataError: it is missing, of no known kind, or does not fit the video. The file, the value and the rule are named.
    """
    if not row.truth:
        return Truth()
    path = Path(root) / row.truth
    if path.is_dir():
        truth = Truth(masks=read_mask_folder(path, row, pictures_of(Path(root) / row.path)))
    elif path.suffix.lower() == ".mat":
        truth = Truth(joints=read_joints(path, row))
    elif path.suffix.lower() == ".npz":
        truth = _read_arrays(path, row)
    else:
        raise DataError(
            f"truth ({path}) of {row.path!r} must be a folder of masks (.png), joints (.mat) or tracks or phases (.npz);"
            f" {'it does not exist' if not path.exists() else 'it is another file'}. {_WAY_OUT}"
        )
    windowed = row_id(row) != row.path
    return truth.cut(row.start_frame, row.start_frame + row.window_frames) if windowed else truth


def truth_sha256(truth: Truth) -> str:
    """Identity of what is known, hex: of ids and coordinates, however they are stored. Reads all masks."""
    digest = hashlib.sha256()
    if truth.masks:
        masks = truth.masks
        digest.update(ascii(("masks", masks.num_frames, masks.height, masks.width, masks.names)).encode())
        for frame in masks.frames:
            digest.update(ascii(frame).encode() + np.ascontiguousarray(masks.at(frame)).tobytes())
    if truth.joints:
        _add_points(digest, "joints", truth.joints.points_TJ2, truth.joints.visible_TJ, truth.joints.names)
    if truth.tracks:
        _add_points(digest, "tracks", truth.tracks.points_TQ2, truth.tracks.visible_TQ, ())
    if truth.phases:
        digest.update(
            ascii(("phases", len(truth.phases.number_T))).encode() + truth.phases.number_T.astype("<i8").tobytes()
        )
    return digest.hexdigest()


def _add_points(
    digest: hashlib._Hash, kind: str, points_TN2: np.ndarray, visible_TN: np.ndarray, names: Sequence[str]
) -> None:
    digest.update(ascii((kind, points_TN2.shape, tuple(names))).encode())
    one_nan_and_one_zero = np.where(np.isnan(points_TN2), np.nan, points_TN2 + 0.0)
    digest.update(one_nan_and_one_zero.astype("<f8").tobytes() + visible_TN.astype(np.uint8).tobytes())


# ---- masks


def read_mask_folder(folder: Path, row: VideoRow, pictures: Sequence[str] | None) -> Masks:
    """The masks of a folder of PNGs.

    Args:
        pictures: names of the frames without their endings, where the video is a folder of pictures: a mask is that of the
            frame whose name it bears. None for a file of video: as many masks as frames are those in order; fewer belong to
            the frames, from 0, whose numbers they bear.

    Raises:
        DataError: there is no mask, none of the first frame, or one without a frame.
    """
    paths = [p for p in folder.iterdir() if p.suffix.lower() in MASK_EXTENSIONS and not p.name.startswith(".")]
    if not paths:
        raise DataError(f"{folder} must hold the masks of {row.path!r} as PNG, it holds none. {_WAY_OUT}")
    sources: dict[int, Path | np.ndarray] = {}
    for frame, path in _with_frames([folder / name for name in in_order(path.name for path in paths)], row, pictures):
        if frame in sources:
            raise DataError(f"{path} and {sources[frame]} are both masks of frame {frame}. Remove one of them.")
        sources[frame] = path
    if 0 not in sources:
        raise DataError(
            f"{folder} must hold a mask of the first frame of {row.path!r}; its first mask is of frame {min(sources)}."
            " Complete the masks."
        )
    names = VIP_PARTS if folder.parent.name == PARTS_FOLDER else ()
    return Masks(sources, num_frames=row.num_frames, height=row.height, width=row.width, names=names, where=str(folder))


def pictures_of(video: Path) -> list[str] | None:
    """Names of the frames without their endings, where a video is a folder of pictures; None where it is a file."""
    if not video.is_dir():
        return None
    return [Path(name).stem for name in list_frames(video).names]


def _with_frames(paths: Sequence[Path], row: VideoRow, pictures: Sequence[str] | None) -> Iterator[tuple[int, Path]]:
    if pictures is not None:
        frames = {name: frame for frame, name in enumerate(pictures)}
        for path in paths:
            if path.stem not in frames:
                raise DataError(
                    f"{path} is the mask of a frame that {row.path!r} lacks: none of its {len(pictures)} pictures is called"
                    f" {path.stem!r}. Complete the pictures, or remove the mask."
                )
            yield frames[path.stem], path
    elif len(paths) == row.num_frames:
        yield from enumerate(paths)
    else:
        for path in paths:
            numbers = re.findall(r"\d+", path.stem)
            if not numbers:
                raise DataError(
                    f"{path} must bear the number of its frame, as 00000.png does for the first. Rename it."
                )
            yield int(numbers[-1]), path


# ---- joints


def read_joints(path: Path, row: VideoRow) -> Joints:
    """The joints of a clip of JHMDB (Jhuang et al., "Towards understanding action recognition", ICCV 2013): ``pos_img``.

    Differs: MATLAB counts pixels from 1; here the center of the first one is (0, 0).

    Raises:
        DataError: the file cannot be read, is of MATLAB 7.3, or does not hold 15 joints in each frame of the video.
    """
    positions = _matlab_array(path, "pos_img")
    shape, num_joints = positions.shape, len(JHMDB_JOINTS)
    if positions.dtype.kind not in "fiu" or len(shape) != 3 or shape[:2] != (2, num_joints):
        raise DataError(
            f"{path}: pos_img must be numbers of shape 2 x {num_joints} x frames, it is {positions.dtype} of shape"
            f" {' x '.join(map(str, shape))}. Fetch joint_positions.zip of JHMDB again."
        )
    if shape[2] != row.num_frames:
        raise DataError(
            f"{path} holds joints of {shape[2]} frames, and {row.path!r} has {row.num_frames}: they must be as many. Take the"
            " pictures of Rename_Images, and fetch what is incomplete again."
        )
    points_TJ2 = positions.astype(np.float64).transpose(2, 1, 0) - 1.0
    points_TJ2[~np.isfinite(points_TJ2).all(axis=-1)] = np.nan
    return Joints(points_TJ2, _inside(points_TJ2, row), JHMDB_JOINTS)


def _matlab_array(path: Path, name: str) -> np.ndarray:
    """A variable of a MATLAB file that holds plain numbers."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path, variable_names=[name]).get(name)
    except NotImplementedError as cause:
        raise DataError(
            f"{path} is a file of MATLAB 7.3 (HDF5), which is not read. Save it as version 7: save(file, '-v7')."
        ) from cause
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, MatReadError, zipfile.error) as cause:
        raise DataError(f"{path} cannot be read ({type(cause).__name__}: {cause}). Fetch it again.") from cause
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} must hold the variable {name}. Fetch joint_positions.zip of JHMDB again.")
    return found


def _inside(points_TN2: np.ndarray, row: VideoRow) -> np.ndarray:
    """Whether points are known and nearest to a pixel of the frame; (T, N) bool."""
    size = np.array([row.width, row.height])
    return np.asarray(((points_TN2 >= -0.5) & (points_TN2 < size - 0.5)).all(axis=-1))


# ---- arrays


def _read_arrays(path: Path, row: VideoRow) -> Truth:
    """Tracks, masks and phases, as far as there are some, of an ``.npz``."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("tracks", "visible", "masks", "phase") if name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as cause:
        raise DataError(f"{path} cannot be read ({type(cause).__name__}: {cause}). {_WAY_OUT}") from cause
    phases = _phases_of(path, row, arrays)
    if phases is not None and set(arrays) == {"phase"}:
        return Truth(phases=phases)
    missing = [name for name in ("tracks", "visible") if name not in arrays]
    if missing:
        raise DataError(f"{path} must hold the arrays tracks and visible, it lacks {name_some(missing)}. {_WAY_OUT}")
    return Truth(masks=_masks_of(path, row, arrays), tracks=_tracks_of(path, row, arrays), phases=phases)


def _phases_of(path: Path, row: VideoRow, arrays: Mapping[str, np.ndarray]) -> Phases | None:
    if "phase" not in arrays:
        return None
    phase = arrays["phase"]
    if phase.dtype.kind not in "iu" or phase.shape != (row.num_frames,) or (phase < 0).any():
        raise DataError(
            f"{path}: phase must be {row.num_frames} whole numbers from 0, one for each frame of {row.path!r}; it is {phase.dtype}"
            f" {phase.shape}. {_WAY_OUT}"
        )
    return Phases(phase.astype(np.int64))


def _tracks_of(path: Path, row: VideoRow, arrays: Mapping[str, np.ndarray]) -> Tracks:
    tracks, visible = arrays["tracks"], arrays["visible"]
    fits = tracks.ndim == 3 and tracks.shape[0] == row.num_frames and tracks.shape[2] == 2
    if not fits or visible.shape != tracks.shape[:2] or tracks.dtype.kind != "f" or visible.dtype != bool:
        raise DataError(
            f"{path}: tracks must be numbers of shape {row.num_frames} (frames of {row.path!r}) x points x 2, and visible true"
            f" or false of the same frames x points; they are {tracks.dtype} {tracks.shape} and {visible.dtype}"
            f" {visible.shape}. {_WAY_OUT}"
        )
    return Tracks(tracks.astype(np.float64), visible)


def _masks_of(path: Path, row: VideoRow, arrays: Mapping[str, np.ndarray]) -> Masks | None:
    """The masks of ``ssvid data synth``: bits along the rows, (objects, T, H, W / 8); objects never overlap."""
    if "masks" not in arrays:
        return None
    bits = arrays["masks"]
    wanted = (row.num_frames, row.height, (row.width + 7) // 8)
    if bits.dtype != np.uint8 or bits.ndim != 4 or bits.shape[1:] != wanted:
        raise DataError(
            f"{path}: masks must be bits of shape objects x {' x '.join(map(str, wanted))} for {row.path!r}, they are {bits.dtype}"
            f" {bits.shape}. {_WAY_OUT}"
        )
    masks_KTHW = np.unpackbits(bits, axis=-1, count=row.width).astype(bool)
    ids_THW = np.zeros(masks_KTHW.shape[1:], np.uint8)
    for number, mask_THW in enumerate(masks_KTHW, start=1):
        ids_THW[mask_THW] = number
    return Masks(
        dict(enumerate(ids_THW)), num_frames=row.num_frames, height=row.height, width=row.width, where=str(path)
    )
