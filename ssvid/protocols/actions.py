"""Named protocols of telling actions apart: probes, k-NN, retrieval and fine-tuning, ours and those of papers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssvid.protocols.contract import NamedProtocol, Published

ALL_FOLDS = (1, 2, 3)  # the official splits of UCF101 and HMDB51

# ---- our own: one for each data set and each way of asking

_LINEAR = "a linear probe on frozen features: logistic regression, its penalty chosen on held-out train"
_KNN = "weighted k-NN on frozen features; nothing is trained"
_RETRIEVAL = "R@k: test videos look for their class among the training videos"
_FINETUNE = "all weights are trained on the labels; the epoch is chosen on held-out train"

_CLIPS: Mapping[str, Any] = {
    "num_frames": 16,
    "stride_frames": 2,
    "num_clips": 10,
    "resize_px": 128,
    "crop_px": 112,
    "pool": "avg",
    "stages": "trained",
    "frames": "video",
    "defects": [],
}
_PROBE: Mapping[str, Any] = {
    "solver": "lbfgs",
    "regularization": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "head_normalizations": ["standard", "l2"],
    "head_stages": "together",
    "holdout_fraction": 0.2,
    "num_holdouts": 5,
    "knn_ks": [5],
}
_NEIGHBORS: Mapping[str, Any] = {"knn_ks": [10, 20, 100, 200], "knn_temperature": 0.07}
_NEAREST: Mapping[str, Any] = {"ks": [1, 5, 10, 20, 50], "manner": "own", "centering": "none"}
_TUNING: Mapping[str, Any] = {
    "frozen": False,
    "head": "linear",
    "num_frames": 16,
    "stride_frames": 2,
    "resize_px": 128,
    "crop_px": 112,
    "crop": "area",
    "min_area": 0.25,
    "flip": True,
    "dropout": 0.5,
    "batch_size": 32,
    "holdout_fraction": 0.1,
    "num_clips": 10,
    "num_crops": 3,
    "averaging": "softmax",
}
_OPTIM: Mapping[str, Any] = {
    "name": "sgd",
    "base_lr": 0.1,
    "epochs": 100,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "warmup_epochs": 5.0,
    "schedule": "cosine",
}
_ONE_K: Mapping[str, Any] = {**_NEIGHBORS, "knn_ks": [5]}  # a folder may hold fewer than ten videos


def _own(
    data: str, folds: tuple[int, ...], neighbors: Mapping[str, Any], nearest: Mapping[str, Any]
) -> tuple[NamedProtocol, ...]:
    where: dict[str, Any] = {"data": {"name": data}, "folds": list(folds)} if folds else {}
    ways: tuple[tuple[str, str, str, Mapping[str, Any], tuple[str, ...]], ...] = (
        ("linear", "probe", _LINEAR, {"features": _CLIPS, "probe": _PROBE}, ("probe_",)),
        ("knn", "probe", _KNN, {"features": _CLIPS, "probe": neighbors}, ("knn",)),
        ("retrieval", "retrieve", _RETRIEVAL, {"features": _CLIPS, "retrieval": nearest}, ("recall_at_",)),
        ("finetune", "finetune", _FINETUNE, {"finetune": _TUNING, "optim": _OPTIM}, ("finetune_",)),
    )
    name = data if folds else "folder"
    splits = "the three official splits" if folds else "the folder's own train and test"
    layout = {} if folds else {"data": {"name": "class_folder"}}
    return tuple(
        NamedProtocol(f"{name}-{way}", 1, kind, f"{text}; {splits}", {**where, **settings}, metrics, videos=layout)
        for way, kind, text, settings, metrics in ways
    )


# ---- those of papers

_VCOP = "Xu et al., Self-supervised Spatiotemporal Learning via Video Clip Order Prediction (VCOP), CVPR 2019"
_COCLR = "Han et al., Self-supervised Co-training for Video Representation Learning (CoCLR), NeurIPS 2020"
_SPEEDNET = "Benaim et al., SpeedNet: Learning the Speediness in Videos, CVPR 2020"
_SHUFFLE = "Misra et al., Shuffle and Learn: Unsupervised Learning using Temporal Order Verification, ECCV 2016"
_SVT = "Ranasinghe et al., Self-supervised Video Transformer (SVT), CVPR 2022; the classifier is DINO's (Caron et al., ICCV 2021)"

_SHORT_SIDE = (
    "the short side is resized to 128, where the released script squashes every frame to 171 x 128: shapes are kept"
)
_ALL_VIDEOS = "every test video is scored, and an unreadable one is wrong"
_HELD_OUT = "the epoch is chosen on held-out train, where the released script looks at test or takes the last"
_EVEN = "clips are spread evenly over the video, where the released script slides a window of overlapping clips"


def _recalls(*values: float) -> dict[str, float]:
    return {f"recall_at_{k}": value for k, value in zip((1, 5, 10, 20, 50), values, strict=False)}


_IIC = "as in the tables of IIC and MVCGC"
_RETRIEVED_UCF101 = (
    Published("random", "R3D", "none", _recalls(9.9, 18.9, 26.0, 35.5, 51.9), _IIC),
    Published("Jigsaw", "CaffeNet", "UCF101", _recalls(19.7, 28.5, 33.5, 40.0, 49.4), _IIC),
    Published("OPN", "CaffeNet", "UCF101", _recalls(19.9, 28.7, 34.0, 40.6, 51.6), _IIC),
    Published("SpeedNet", "S3D-G", "Kinetics-400", _recalls(13.0, 28.1, 37.5, 49.5, 65.0), "SpeedNet, table 5"),
    Published("VCOP", "R3D", "UCF101", _recalls(14.1, 30.3, 40.4, 51.1, 66.5), _IIC),
    Published("VCOP", "R(2+1)D", "UCF101", _recalls(10.7, 25.9, 35.4, 47.3, 63.9), _IIC),
    Published("VCP", "R3D", "UCF101", _recalls(18.6, 33.6, 42.5, 53.5, 68.1), _IIC),
    Published("IIC", "R3D", "UCF101", _recalls(42.4, 60.9, 69.2, 77.1, 86.5), _IIC),
)
_TUNED_UCF101 = (
    Published("random", "S3D-G", "none", {"finetune_top1": 73.8}, "recalled from SpeedNet, not verified"),
    Published("Shuffle and Learn", "CaffeNet", "UCF101", {"finetune_top1": 50.2}, "authors' README, mean of 3 splits"),
    Published("OPN", "VGG-M", "UCF101", {"finetune_top1": 59.8}, "survey tables"),
    Published("VCOP", "R(2+1)D", "UCF101", {"finetune_top1": 72.4}, "survey tables"),
    Published("Pace", "R(2+1)D", "Kinetics-400", {"finetune_top1": 77.1}, "survey tables"),
    Published("SpeedNet", "S3D-G", "Kinetics-400", {"finetune_top1": 81.1}, "SpeedNet; quoted from later tables"),
    Published("CoCLR", "S3D", "Kinetics-400", {"finetune_top1": 87.9}, "CoCLR; quoted from later tables"),
)
_VCOP_CLIPS: Mapping[str, Any] = {**_CLIPS, "stride_frames": 1}
_COCLR_CLIPS: Mapping[str, Any] = {**_CLIPS, "num_frames": 32, "stride_frames": 1, "resize_px": 146, "crop_px": 128}

_OF_PAPERS = (
    NamedProtocol(
        "vcop-retrieval",
        1,
        "retrieve",
        "R@k of VCOP: 10 clips of 16 frames, last maps pooled to 2 x 2 cells, cosine, no centering",
        {
            "data": {"name": "ucf101"},
            "folds": [1],
            "features": {key: value for key, value in _VCOP_CLIPS.items() if key != "pool"},
            "retrieval": {**_NEAREST, "manner": "vcop"},
        },
        ("recall_at_",),
        _VCOP,
        "retrieve_clips.py of the authors' repository",
        (_SHORT_SIDE, _ALL_VIDEOS),
        {"the last batch of train and of test is dropped, up to 7 videos of each": "features.defects=[drop_last]"},
        _RETRIEVED_UCF101,
    ),
    NamedProtocol(
        "vcop-finetune",
        1,
        "finetune",
        "VCOP's fine-tuning: 16 x 112 px, 150 epochs of SGD, 10 clips, center crop, mean of logits",
        {
            "data": {"name": "ucf101"},
            "folds": [1],
            "finetune": {
                **_TUNING,
                "stride_frames": 1,
                "crop": "place",
                "flip": False,
                "batch_size": 8,
                "num_crops": 1,
                "averaging": "logits",
            },
            "optim": {
                **_OPTIM,
                "epochs": 150,
                "base_lr": 0.032,
                "weight_decay": 5e-4,
                "warmup_epochs": 0.0,
                "schedule": "constant",
            },
        },
        ("finetune_",),
        _VCOP,
        "ft_classify.py of the authors' repository",
        (_SHORT_SIDE, _HELD_OUT, "the learning rate, 0.001 at batch 8, is written as base_lr 0.032"),
        published=_TUNED_UCF101,
    ),
    NamedProtocol(
        "coclr-retrieval",
        1,
        "retrieve",
        "R@k of CoCLR: 32 x 128 px, mean over time and space, train and test centered apart",
        {
            "data": {"name": "ucf101"},
            "folds": [1],
            "features": {key: value for key, value in _COCLR_CLIPS.items() if key != "pool"},
            "retrieval": {**{k: v for k, v in _NEAREST.items() if k != "centering"}, "manner": "coclr"},
        },
        ("recall_at_",),
        _COCLR,
        "eval/main_classifier.py of the authors' repository",
        (_EVEN, _ALL_VIDEOS),
        {"colors are jittered at test time too, so that no two runs agree": "features.defects=[color_jitter]"},
        (
            Published(
                "CoCLR-RGB", "S3D", "UCF101", _recalls(53.3, 69.4, 76.6, 82.0), "CoCLR; quoted from later tables"
            ),
            Published(
                "CoCLR, two streams",
                "S3D",
                "UCF101",
                _recalls(55.9, 70.8, 76.9, 82.5),
                "CoCLR; quoted from later tables",
            ),
            Published(
                "MemDPC-RGB", "R2D3D", "UCF101", _recalls(20.2, 40.4, 52.4, 64.7), "CoCLR; quoted from later tables"
            ),
        ),
    ),
    NamedProtocol(
        "coclr-linear",
        1,
        "probe",
        "CoCLR's linear probe on cached features: l2, batch norm, linear; SGD of 100 epochs at batch 1,024",
        {
            "data": {"name": "ucf101"},
            "folds": [1],
            "features": _COCLR_CLIPS,
            "probe": {
                "solver": "sgd",
                "learning_rates": [1.0],
                "weight_decays": [0.001],
                "head_epochs": 100,
                "head_batch_size": 1024,
                "head_schedule": "step",
                "head_normalizations": ["l2_batch"],
                "knn_ks": [5],
            },
        },
        ("probe_",),
        _COCLR,
        "eval/feature_linear_probe.py of the authors' repository",
        (_EVEN, "center crops, where the script takes five crops and their mirror images"),
        {"colors are jittered at test time too": "features.defects=[color_jitter]"},
        (
            Published("CoCLR-RGB", "S3D", "UCF101", {"probe_top1": 70.2}, "CoCLR; quoted from later tables"),
            Published("CoCLR-RGB", "S3D", "Kinetics-400", {"probe_top1": 74.5}, "CoCLR; quoted from later tables"),
            Published("CBT", "S3D", "Kinetics-600", {"probe_top1": 54.0}, "CoCLR; quoted from later tables"),
            Published("MemDPC", "R2D3D", "Kinetics-400", {"probe_top1": 54.1}, "CoCLR; quoted from later tables"),
        ),
    ),
    NamedProtocol(
        "coclr-finetune",
        1,
        "finetune",
        "CoCLR's fine-tuning: 32 x 128 px, Adam, the head ten times as fast, ten crops, mean of softmax",
        {
            "data": {"name": "ucf101"},
            "folds": [1],
            "finetune": {
                **_TUNING,
                "num_frames": 32,
                "stride_frames": 1,
                "resize_px": 146,
                "crop_px": 128,
                "min_area": 0.2,
                "jitter": [0.4, 0.4, 0.4, 0.1],
                "jitter_probability": 0.3,
                "dropout": 0.9,
                "head_lr_factor": 10.0,
                "num_crops": 10,
            },
            "optim": {
                **_OPTIM,
                "name": "adam",
                "epochs": 500,
                "base_lr": 0.0008,
                "weight_decay": 1e-3,
                "warmup_epochs": 0.0,
                "schedule": "step",
                "step_epochs": [400, 450],
            },
        },
        ("finetune_",),
        _COCLR,
        "eval/main_classifier.py of the authors' repository",
        (_EVEN, _HELD_OUT, "the learning rate, 0.0001 (head 0.001) at batch 32, is written as base_lr 0.0008"),
        published=_TUNED_UCF101,
    ),
    NamedProtocol(
        "speednet-finetune",
        1,
        "finetune",
        "SpeedNet's fine-tuning: S3D-G, 64 frames of 224 px; what the paper leaves open is ours",
        {
            "data": {"name": "ucf101"},
            "folds": list(ALL_FOLDS),
            "finetune": {**_TUNING, "num_frames": 64, "stride_frames": 1, "resize_px": 256, "crop_px": 224},
            "optim": _OPTIM,
        },
        ("finetune_",),
        _SPEEDNET,
        "the paper, section 5.3; no program was released",
        ("optimizer, schedule, crops and views are our own: the paper does not say them",),
        published=_TUNED_UCF101,
    ),
    NamedProtocol(
        "shuffle-and-learn-finetune",
        1,
        "finetune",
        "Shuffle and Learn's: a network of single frames, tested on 25 frames x 10 crops",
        {
            "data": {"name": "ucf101"},
            "folds": list(ALL_FOLDS),
            "finetune": {
                **_TUNING,
                "num_frames": 1,
                "stride_frames": 1,
                "resize_px": 256,
                "crop_px": 224,
                "dropout": 0.9,
                "num_clips": 25,
                "num_crops": 10,
                "averaging": "softmax",
            },
            "optim": _OPTIM,
        },
        ("finetune_",),
        _SHUFFLE,
        "the authors' README, which names the TSN program",
        ("learning rate and schedule are our own", _HELD_OUT),
        published=tuple(p for p in _TUNED_UCF101 if p.backbone in ("CaffeNet", "VGG-M")),
    ),
    NamedProtocol(
        "svt-knn",
        1,
        "probe",
        "the k-NN of DINO and SVT: unit vectors, weights exp(cosine / 0.07), several k",
        {
            "data": {"name": "ucf101"},
            "folds": [1],
            "features": {**_CLIPS, "resize_px": 256, "crop_px": 224, "num_clips": 5},
            "probe": {**_NEIGHBORS, "knn_ks": [5, 10, 20, 100, 200]},
        },
        ("knn",),
        _SVT,
        "eval_knn.py of both repositories; SVT's script uses k = 5",
        ("the length and number of clips are our own: SVT's are those of its transformer",),
    ),
)

ACTIONS: tuple[NamedProtocol, ...] = (
    *_own("ucf101", ALL_FOLDS, _NEIGHBORS, _NEAREST),
    *_own("hmdb51", ALL_FOLDS, _NEIGHBORS, _NEAREST),
    *_own("folder", (), _ONE_K, {**_NEAREST, "ks": [1, 5]}),
    *_OF_PAPERS,
)
