"""Options of the recipe groups ``data`` and ``loader``. Plain types, legal values on the fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ssvid.bounds import AtLeast, BelowOne, Between, OneOf, Positive
from ssvid.settings import IDLE, PLACE, ROUNDING
from ssvid.types import MODALITIES
from ssvid.video.flow import FlowSettings
from ssvid.video.frame_folders import PICTURES_FPS


@dataclass
class OutOfDomainConfig:
    """Videos from elsewhere that pretraining is measured on and never trained on: re-encoded, or of another source.

    name, root, list, split: as in ``data``; an empty ``root`` switches it off.
    frame_step: use each n-th frame alone: 8 makes 30 frames per second out of 240.
    """

    name: str = "folder"
    root: str = field(default="", metadata=PLACE)
    list: str = field(default="", metadata=PLACE)
    split: str = ""
    frame_step: Annotated[int, AtLeast(1)] = 1


@dataclass
class DataConfig:
    """Which videos. A folder of videos is enough; a video is a file, or a folder of pictures.

    name: a reader of ``ssvid data index --help``: ``folder`` (every video below ``root``, no labels), ``class_folder`` (``root/<class>/*`` or
        ``root/{train,val,test}/<class>/*``), ``list`` (``list`` names a file of ``path label`` lines), ``manifest``
        (``list`` or ``root/manifest.csv`` is a table written by ``ssvid data index`` or ``ssvid data synth``),
        or a data set as downloaded, with its official split files, such as ``ucf101``.
    root: folder that paths are relative to.
    list: file for ``list``, ``manifest`` and other readers that take one.
    split: use only the rows of this split ("" is all rows; pretraining then still leaves out ``test`` and ``unused``). In an
        evaluation it is the split that is scored, as ``test_split``.
    test_split: the split that an evaluation scores; "" is ``test``, or ``val`` where no video of ``test`` has a label.
    fold: which official split, from 1, of data sets that have several (``ucf101``, ``hmdb51``).
    annotations: folder of the official split files; "" looks in and beside ``root``, and in the folders of their usual
        names there.
    allow_missing: leave out videos that the official split files list and ``root`` lacks; every result then names them.
    val_fraction: share of videos held out to measure the pretext metric on; 0 switches validation off.
    segment_seconds: a longer video counts as several samples of about this length, so that an hour of footage is
        drawn from in proportion to its duration.
    index_workers: processes that scan new files; 0 is one per core.
    index_timeout_seconds: a new file hangs in which nothing moves for so long: no packet read, no frame decoded.
    gray_range: the values of gray videos of more than 8 bits (depth, X-ray, thermal) that become black and white; [] keeps
        their upper 8 bits. A table (``manifest``) says it itself.
    fps: frames per second of folders of pictures, which do not tell it. A table (``manifest``) says it itself, and so do
        video files: they are not resampled.
    modality: what clips are made of: "rgb", the frames of the videos, or "flow", the optical flow between them, which
        ``ssvid data flow`` has measured before. A network then needs the option ``in_channels=2``.
    flow: which measurement of flow is read, and how.
    out_of_domain: a second set, on which the pretext metrics are measured beside the held-out videos.
    """

    name: str = "folder"
    root: str = field(default="???", metadata=PLACE)
    list: str = field(default="", metadata=PLACE)
    split: str = ""
    test_split: str = ""
    fold: Annotated[int, AtLeast(1)] = 1
    annotations: str = field(default="", metadata=PLACE)
    allow_missing: bool = False
    val_fraction: Annotated[float, BelowOne] = 0.05
    segment_seconds: Annotated[float, Positive] = 30.0
    index_workers: Annotated[int, AtLeast(0)] = field(default=0, metadata=IDLE)
    index_timeout_seconds: Annotated[float, Positive] = field(default=60.0, metadata=IDLE)
    gray_range: tuple[int, ...] = ()
    fps: Annotated[float, Positive] = PICTURES_FPS
    modality: Annotated[str, OneOf(*MODALITIES)] = MODALITIES[0]
    flow: FlowSettings = field(default_factory=FlowSettings)
    out_of_domain: OutOfDomainConfig = field(default_factory=OutOfDomainConfig)


@dataclass
class LoaderConfig:
    """How clips reach the device.

    global_batch: samples per optimizer step over all devices and accumulated micro-batches.
    workers_per_device: decoding processes for each device; 0 decodes in the training process.
    clips_per_video: samples drawn from one opened file; more is cheaper and less diverse. Divides the micro-batch.
    decoder: ``auto`` takes, for each file, the fastest decoder that was found right for it.
    prefetch_batches: batches that each worker prepares ahead.
    max_unreadable_fraction: share of drawn videos that may be replaced because they cannot be read.
    timeout_seconds: a batch that takes longer stops the run and says so; 0 waits for ever.
    """

    global_batch: Annotated[int, AtLeast(1)] = 32
    workers_per_device: Annotated[int, AtLeast(0)] = field(default=2, metadata=IDLE)
    clips_per_video: Annotated[int, AtLeast(1)] = 1
    decoder: str = field(default="auto", metadata=ROUNDING)
    prefetch_batches: Annotated[int, AtLeast(1)] = field(default=2, metadata=IDLE)
    max_unreadable_fraction: Annotated[float, Between(0, 1)] = field(default=0.01, metadata=IDLE)
    timeout_seconds: Annotated[float, AtLeast(0)] = field(default=120.0, metadata=IDLE)
