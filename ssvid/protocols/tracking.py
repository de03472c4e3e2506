"""Named protocols of correspondence: labels of one frame carried through a video by the likeness of features.

Each says all knobs of ``track``, so that two of them can be held against each other line by line. Numbers under two of them
are not to be compared: the size of the frames alone moves J&F of one network by eight points (TimeCycle's README).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssvid.protocols.contract import NamedProtocol, Published

_TIMECYCLE = "Wang, Jabri and Efros, Learning Correspondence from the Cycle-consistency of Time (TimeCycle), CVPR 2019"
_CRW = "Jabri, Owens and Efros, Space-Time Correspondence as a Contrastive Random Walk (CRW), NeurIPS 2020"
_DINO = "Caron et al., Emerging Properties in Self-Supervised Vision Transformers (DINO), ICCV 2021"
_CROPMAE = "Eymael et al., Efficient Image Pre-Training with Siamese Cropped Masked Autoencoders (CropMAE), ECCV 2024"
_RVM = "Recurrent Video Masked autoencoders (RVM), google-deepmind/representations4d"
_DINOV3 = "Simeoni et al., DINOv3, 2025"
_TAPVID = "Doersch et al., TAP-Vid: A Benchmark for Tracking Any Point in a Video, NeurIPS Datasets and Benchmarks 2022"

# Where a source says nothing of its own.
_POINTS: Mapping[str, Any] = {
    "point_queries": "both",
    "point_radius_cells": 5.0,
    "point_temperature": 0.05,
    "point_min_cosine": 0.7,
    "point_max_cycle_px": 4.0,
}
_JOINTS: Mapping[str, Any] = {"joint_sigma_cells": 0.5, "joint_cells": 3, "joint_half_cell": False}
_SHARED: Mapping[str, Any] = {
    "stage": "",
    "stride_px": 8,
    "normalization": "l2",
    "width_px": 0,
    "antialias": False,
    "first_frame": True,
    "grid": "stretched",
    "convention": "davis2017",
    **_JOINTS,
    **_POINTS,
}


def _knobs(*layers: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """All knobs: what is shared, then each layer over the one before."""
    whole = dict(_SHARED)
    for layer in (*layers, own):
        whole |= layer
    return whole


_OF_TIMECYCLE: Mapping[str, Any] = {
    "size_rule": "square",
    "size_px": 320,
    "multiple_px": 1,
    "multiple_rounding": "down",
    "multiple_sides": "both",
    "frame_resampling": "bilinear",
    "num_previous": 7,
    "primed": True,
    "temperature": 512**-0.5,
    "top_k": 5,
    "top_k_over": "frame",
    "softmax_over": "all",
    "radius_cells": 0.0,
    "radius_shape": "circle",
    "radius_includes": False,
    "radius_on_first": False,
    "label_resampling": "bilinear",
    "feedback": "min_max",
    "decision_min_max": False,
    "decision_size": "frame",
    "decision_resampling": "bilinear",
    "score_size": "video",
    "score_resampling": "nearest",
}
_OF_CRW: Mapping[str, Any] = {
    **_OF_TIMECYCLE,
    "size_rule": "native",
    "size_px": 480,
    "num_previous": 20,
    "temperature": 0.05,
    "top_k": 10,
    "top_k_over": "context",
    "softmax_over": "kept",
    "radius_cells": 12.0,
    "feedback": "soft",
    "decision_size": "frame",
}
_OF_DINO: Mapping[str, Any] = {
    **_OF_CRW,
    "size_rule": "short_side",
    "multiple_px": 64,
    "multiple_sides": "other",
    "num_previous": 7,
    "primed": False,
    "temperature": 0.1,
    "top_k": 5,
    "radius_shape": "square",
    "radius_includes": True,
    "radius_on_first": True,
    "label_resampling": "nearest_exact",
    "decision_min_max": True,
    "score_resampling": "nearest_exact",
    "stride_px": 0,
}
_OF_CROPMAE: Mapping[str, Any] = {
    **_OF_CRW,
    "size_rule": "exact",
    "size_px": 480,
    "width_px": 880,
    "frame_resampling": "nearest_exact",
    "temperature": 0.7,
    "top_k": 7,
    "radius_cells": 20.0,
    "score_size": "frame",
    "score_resampling": "nearest_exact",
    "stride_px": 0,
}
_OF_RVM: Mapping[str, Any] = {
    **_OF_CROPMAE,
    "frame_resampling": "bicubic",
    "antialias": True,
    "score_size": "video",
}
_OF_DINOV3: Mapping[str, Any] = {
    **_OF_DINO,
    "size_px": 960,
    "multiple_px": 16,
    "multiple_rounding": "up",
    "multiple_sides": "both",
    "frame_resampling": "bicubic",
    "antialias": True,
    "temperature": 0.2,
    "radius_shape": "circle",
    "decision_size": "video",
    "decision_resampling": "nearest",
}
_SQUARE_320: Mapping[str, Any] = {"size_rule": "square", "size_px": 320, "width_px": 0}

# ---- rows of others


def _jf(j: float, f: float, **more: float) -> dict[str, float]:
    return {f"davis_{name}": value for name, value in more.items()} | {"davis_j": j, "davis_f": f}


_PAPER = "TimeCycle, tables; recalled, not verified"
_README = "authors' README, at 320 px"
_OF_DAVIS_TIMECYCLE = (
    Published("identity", "none", "none", _jf(22.1, 23.6), _PAPER),
    Published("random", "ResNet-50", "none", _jf(12.4, 12.5), _PAPER),
    Published("optical flow", "FlowNet2", "synthetic flow", _jf(26.7, 25.2), _PAPER),
    Published("SIFT flow", "none", "none", _jf(33.0, 35.0), _PAPER),
    Published("DeepCluster", "ResNet-50", "ImageNet", _jf(37.5, 33.2), _PAPER),
    Published("Colorization", "ResNet-18", "Kinetics", _jf(34.6, 32.7), _PAPER),
    Published("TimeCycle", "ResNet-18", "VLOG", _jf(40.1, 38.3), _PAPER),
    Published("TimeCycle", "ResNet-50", "VLOG", _jf(41.9, 39.4), _README),
    Published("supervised", "ResNet-50", "ImageNet", _jf(50.3, 49.0), _PAPER),
)
_CRW_RELEASED = _jf(64.6, 70.6, jf=67.6, j_recall=75.8, f_recall=83.2, j_decay=20.3, f_decay=24.7)
_OF_DAVIS_CRW = (Published("CRW", "ResNet-18", "Kinetics-400", _CRW_RELEASED, "authors' README, the released model"),)
_OF_DAVIS_DINO = tuple(
    Published("DINO", network, "ImageNet", {"davis_jf": value}, "DINO, table 5; recalled, not verified")
    for network, value in (("ViT-S/16", 61.8), ("ViT-S/8", 69.9), ("ViT-B/8", 71.4))
)
_COMPARED = "CropMAE's and T-CoRe's repositories"


_BY_CROPMAE: tuple[tuple[str, str, str, tuple[float, float, float], str], ...] = (
    ("CropMAE", "ViT-S/16", "ImageNet", (60.1, 33.2, 43.5), _COMPARED),
    ("CropMAE", "ViT-S/16", "Kinetics-400", (58.6, 33.7, 42.9), _COMPARED),
    ("T-CoRe", "ViT-S/16", "ImageNet", (64.1, 39.7, 46.2), _COMPARED),
    ("T-CoRe", "ViT-S/16", "Kinetics-400", (64.7, 37.8, 47.0), _COMPARED),
    ("T-CoRe", "ViT-B/16", "Kinetics-400", (66.4, 38.9, 47.1), _COMPARED),
    ("SiamMAE", "ViT-S/16", "Kinetics-400", (62.0, 37.3, 47.0), "SiamMAE; recalled, not verified"),
    ("SiamMAE", "ViT-S/8", "Kinetics-400", (71.4, 45.9, 61.9), "SiamMAE; recalled, not verified"),
)


def _by_cropmae(metric: str, column: int) -> tuple[Published, ...]:
    """A column of: J&F on DAVIS, mIoU on VIP, PCK@.1 on JHMDB."""
    return tuple(
        Published(method, network, videos, {metric: values[column]}, source)
        for method, network, videos, values, source in _BY_CROPMAE
    )


_OF_DAVIS_DINOV3 = tuple(
    Published("DINOv3", network, "LVD-1689M", {"davis_jf": value}, "authors' model card")
    for network, value in (
        *(("ViT-S/16", 72.7), ("ViT-S+/16", 75.5), ("ViT-B/16", 77.2), ("ViT-L/16", 79.9)),
        ("ViT-7B/16", 79.7),
    )
)
_OF_JHMDB_TIMECYCLE = (
    Published("identity", "none", "none", {"pck@0.1": 43.1, "pck@0.2": 64.5}, _PAPER),
    Published("Colorization", "ResNet-18", "Kinetics", {"pck@0.1": 45.2, "pck@0.2": 69.6}, _PAPER),
    Published("TimeCycle", "ResNet-18", "VLOG", {"pck@0.1": 57.3, "pck@0.2": 78.1}, _PAPER),
    Published("TimeCycle", "ResNet-50", "VLOG", {"pck@0.1": 57.7, "pck@0.2": 78.5}, _PAPER),
    Published("supervised", "ResNet-50", "ImageNet", {"pck@0.1": 58.4, "pck@0.2": 78.4}, _PAPER),
)
_CRW_RECALLED = "CRW; recalled, not verified"
_OF_JHMDB_CRW = (Published("CRW", "ResNet-18", "Kinetics-400", {"pck@0.1": 59.3, "pck@0.2": 84.9}, _CRW_RECALLED),)
_OF_VIP_CRW = (Published("CRW", "ResNet-18", "Kinetics-400", {"miou": 38.6}, _CRW_RECALLED),)

# ---- the protocols

_WHERE: Mapping[str, Mapping[str, Any]] = {
    "davis2017": {"name": "davis", "test_split": "val"},
    "jhmdb": {"name": "jhmdb", "test_split": "test"},
    "vip": {"name": "vip", "test_split": "val"},
    "tapvid-davis": {"name": "tapvid", "test_split": "test"},
}
_MEASURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "davis2017": ("objects", ("davis_",)),
    "jhmdb": ("joints", ("pck@",)),
    "vip": ("parts", ("miou",)),
    "tapvid-davis": ("points", ("tapvid_",)),
}
_LAST_STAGE = (
    "features are those of the deepest trained stage, whatever the network; the released program takes those of its own"
)


def _protocol(
    data: str,
    way: str,
    summary: str,
    knobs: Mapping[str, Any],
    reproduces: str,
    source: str,
    differs: tuple[str, ...] = (),
    published: tuple[Published, ...] = (),
) -> NamedProtocol:
    measure, metrics = _MEASURES[data]
    settings = {"data": dict(_WHERE[data]), "track": {"measure": measure, **knobs}}
    whose = (reproduces, source, (_LAST_STAGE, *differs)) if reproduces else ("", "", differs)
    name = f"{data}-{way}".rstrip("-")
    return NamedProtocol(name, 1, "track", summary, settings, metrics, *whose, published=published)


_DAVIS = (
    _protocol(
        "davis2017",
        "timecycle",
        "TimeCycle's: squares of 320 px, frame 0 and 7 frames, top 5 of each frame after the softmax, no radius",
        _knobs(_OF_TIMECYCLE),
        _TIMECYCLE,
        "test_davis.py and run_test.sh of the authors' repository",
        published=_OF_DAVIS_TIMECYCLE,
    ),
    _protocol(
        "davis2017",
        "crw",
        "CRW's: native 480p, frame 0 and 20 frames, top 10, circle of 12 cells but for frame 0",
        _knobs(_OF_CRW),
        _CRW,
        "test.py and README of the authors' repository (ajabri/videowalk)",
        published=_OF_DAVIS_CRW,
    ),
    _protocol(
        "davis2017",
        "dino",
        "DINO's: short side 480, frame 0 and 7 frames, top 5, square of 12 cells for all frames",
        _knobs(_OF_DINO),
        _DINO,
        "eval_video_segmentation.py of the authors' repository",
        ("colors are normalized by the network's own deviations, where the script has 0.228 for red",),
        published=_OF_DAVIS_DINO,
    ),
    _protocol(
        "davis2017",
        "cropmae",
        "CropMAE's, of T-CoRe and ToBo too: 480 x 880, scored there, 20 frames, top 7, temperature 0.7, circle of 20 cells",
        _knobs(_OF_CROPMAE),
        _CROPMAE,
        "downstreams/propagation of the authors' repository",
        ("frames are not saved as JPEG once more after they were resized",),
        published=_by_cropmae("davis_jf", 0),
    ),
    _protocol(
        "davis2017",
        "rvm",
        "CropMAE's, from frames that are resized well, and scored at native size",
        _knobs(_OF_RVM),
        _RVM,
        "the authors' repository",
    ),
    _protocol(
        "davis2017",
        "dinov3",
        "DINOv3's: short side 960, frame 0 and 7 frames, top 5, temperature 0.2, circle of 12 cells for all frames",
        _knobs(_OF_DINOV3),
        _DINOV3,
        "notebooks/segmentation_tracking.ipynb of the authors' repository",
        published=_OF_DAVIS_DINOV3,
    ),
)
_JHMDB = (
    _protocol(
        "jhmdb",
        "timecycle",
        "TimeCycle's way of propagating, for joints: squares of 320 px",
        _knobs(_OF_TIMECYCLE),
        _TIMECYCLE,
        "the paper; the authors' program for joints was not found",
        ("joints become labels, and labels joints, as in videowalk",),
        published=_OF_JHMDB_TIMECYCLE,
    ),
    _protocol(
        "jhmdb",
        "crw",
        "CRW's: squares of 320 px, a joint is the mean of its 3 strongest cells",
        _knobs(_OF_CRW, _SQUARE_320),
        _CRW,
        "test.py, data/jhmdb.py and eval/eval_pck.py of the authors' repository (ajabri/videowalk)",
        ("a joint whose label has vanished is wrong, where the released program leaves it out",),
        published=_OF_JHMDB_CRW,
    ),
    _protocol(
        "jhmdb",
        "cropmae",
        "CropMAE's: squares of 320 px, a joint is the mean of its 5 strongest cells",
        _knobs(_OF_CROPMAE, _SQUARE_320, joint_cells=5),
        _CROPMAE,
        "downstreams/propagation of the authors' repository",
        ("a joint whose label has vanished is wrong, where the released program leaves it out",),
        published=_by_cropmae("pck@0.1", 2),
    ),
)
_VIP = (
    _protocol(
        "vip",
        "crw",
        "CRW's: squares of 560 px, 20 frames, top 10",
        _knobs(_OF_CRW, size_rule="square", size_px=560),
        _CRW,
        "test.py and eval/eval_vip.py of the authors' repository (ajabri/videowalk)",
        ("the size, 560, is recalled from the paper and was not verified",),
        published=_OF_VIP_CRW,
    ),
    _protocol(
        "vip",
        "cropmae",
        "CropMAE's: long side 880, 20 frames, top 10",
        _knobs(
            _OF_CROPMAE,
            size_rule="long_side",
            size_px=880,
            width_px=0,
            multiple_px=64,
            multiple_sides="other",
            score_size="video",
            top_k=10,
        ),
        _CROPMAE,
        "downstreams/propagation of the authors' repository",
        published=_by_cropmae("miou", 1),
    ),
)
_TAPVID_DAVIS = _protocol(
    "tapvid-davis",
    "",
    "points by the likeness of features: TAP-Vid's metrics, queries first and strided; the tracker is ours",
    _knobs(_OF_CRW, size_rule="square", size_px=256, frame_resampling="bilinear", antialias=True),
    _TAPVID,
    "tapvid/evaluation_datasets.py of the authors' repository (google-deepmind/tapnet)",
    ("features find the points: a best cell, a soft maximum around it, visible where cosine and the way back say so",),
)
_OWN = NamedProtocol(
    "track",
    1,
    "track",
    "our own: short side 480, frame 0 and 20 frames, top 10, cells where the network has them",
    {
        "track": _knobs(
            _OF_CRW,
            size_rule="short_side",
            size_px=480,
            frame_resampling="bicubic",
            antialias=True,
            primed=False,
            radius_includes=True,
            label_resampling="area",
            grid="placed",
            decision_size="video",
            score_resampling="nearest_exact",
            point_temperature=0.01,
            point_radius_cells=2.0,
        )
        | {"measure": "all"}
    },
    ("davis_", "davis2016_", "pck@", "miou", "tapvid_"),
    videos={"data": {"name": "davis"}},
)

TRACKING: tuple[NamedProtocol, ...] = (_OWN, *_DAVIS, *_JHMDB, *_VIP, _TAPVID_DAVIS)
