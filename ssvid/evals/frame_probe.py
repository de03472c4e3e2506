"""A probe over frames: a head that brings the frames of a clip together, trained on kept vectors of a frozen network.

The network sees each video once. What is trained afterwards is a head alone, in seconds: the same heads that ``ssvid finetune``
trains with augmentation or through the network (``finetune.head``). Sources of the heads: ``ssvid.classifiers.fusion``,
``recurrent`` and ``attentive``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone
from ssvid.bounds import AtLeast, BelowOne, NotEmpty, OneOf, Positive, UpToHalf, check, told
from ssvid.classifiers.heads import build_head
from ssvid.classifiers.protocol import (
    FRAME_HEADS,
    HEADS_OF_A_WIDTH,
    HEADS_OF_LAYERS,
    FinetuneSettings,
    FrameHeadKeys,
    frame_head_problems,
)
from ssvid.classifiers.scoring import in_top, likeliest
from ssvid.errors import RecipeError
from ssvid.evals.contract import (
    Evaluation,
    LabeledData,
    Number,
    Seen,
    Subject,
    Tools,
    guess_chance,
    register_evaluation,
)
from ssvid.evals.hand_made import HandMade, svm_number
from ssvid.evals.holdouts import held_out
from ssvid.evals.linear_probe.probe import readable_train
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol, resolve_feature_protocol
from ssvid.features.store import Features
from ssvid.results.rows import ResultRow

_KEYS = FrameHeadKeys(
    "evaluation.options.head",
    "features.num_frames",
    "features.stages",
    "Take a network that sees frames (resnet18; ssvid backbones), or another probe (evaluation.name=linear_probe).",
)


@dataclass(frozen=True)
class FrameProbeConfig:
    """How a head over the vectors of frames is trained.

    head: "average" of the probabilities of single frames, "late_concat" of their vectors, "late_pool" of their vectors' mean,
        "lstm" over them, "attention" among them.
    head_width: of the hidden layer of "late_concat" and "late_pool" (0: as wide as a vector), or units of "lstm" (0: 256).
    head_layers: how many, of "lstm" and "attention". dropout: before the last layer.
    epochs, batch_size: of AdamW, whose rate falls to 0 along a cosine. learning_rates, weight_decays: one of each is chosen on
        a held-out part of train, ``holdout_fraction`` of it, groups kept together; the head then learns from all of train.
    """

    head: Annotated[str, OneOf(*FRAME_HEADS)] = "lstm"
    head_width: Annotated[int, AtLeast(0)] = 0
    head_layers: Annotated[int, AtLeast(1)] = 1
    dropout: Annotated[float, BelowOne] = 0.2
    epochs: Annotated[int, AtLeast(1)] = 50
    batch_size: Annotated[int, AtLeast(1)] = 32
    learning_rates: Annotated[tuple[float, ...], Positive, NotEmpty] = (0.0003, 0.001, 0.003)
    weight_decays: Annotated[tuple[float, ...], AtLeast(0), NotEmpty] = (0.01, 0.1)
    holdout_fraction: Annotated[float, UpToHalf] = 0.2


@register_evaluation("frame_probe")
class FrameProbe(Evaluation):
    """Top-1, and top-5 above 5 classes, of a head over the vectors of frames; of vectors made by hand that of a linear SVM."""

    Config = FrameProbeConfig
    metrics = ("frame_probe",)

    def check(self, config: FrameProbeConfig, num_train: int | None = None) -> None:
        problems = []
        for name, heads, nothing in (("head_width", HEADS_OF_A_WIDTH, 0), ("head_layers", HEADS_OF_LAYERS, 1)):
            if getattr(config, name) != nothing and config.head not in heads:
                rule = f"is for {_KEYS.head}={' or '.join(heads)}"
                problems.append(told(f"evaluation.options.{name}", getattr(config, name), rule, nothing))
        check(config, "evaluation.options.", problems)

    def prepare(
        self, features: FeatureProtocol, config: FrameProbeConfig, network: Backbone, tools: Tools
    ) -> tuple[FeatureProtocol, FrameProbeConfig]:
        """One clip and one stage, and a vector of each frame.

        Raises:
            RecipeError: the features are others, or the network gives no map for each frame.
        """
        info = network.info
        wanted = replace(features, stages="trained" if features.stages == "all" else features.stages)
        stages = resolve_feature_protocol(wanted, info, network.provenance.get("stage")).stage_names
        problems = [
            *frame_head_problems(config.head, features.num_frames, stages[0], info, network.per_frame, _KEYS),
            *(
                told(f"features.{name}", value, rule, way_out)
                for name, value, rule, way_out in _unfit(features, stages)
            ),
        ]
        if problems:
            raise RecipeError("\n".join(problems))
        return replace(wanted, stages=stages[0], pool="frames"), config

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: FrameProbeConfig, tools: Tools
    ) -> Iterator[Number]:
        if isinstance(subject.network, HandMade):
            yield svm_number("frame_probe_top1", subject.network, seen, ProbeProtocol(seed=tools.seed))
            return
        found = _found(subject, seen, config, tools)
        labels, title = seen.test.labels, f"{config.head} probe"
        for num in (1, 5) if len(found.classes) > 5 else (1,):
            correct_N = in_top(found.scores_NK, found.classes, labels, num)
            said: dict[str, Any] = {"head": found.about}
            if num == 1:
                said["predictions"] = list(likeliest(found.scores_NK, found.classes))
            chance = guess_chance(labels, num)
            yield Number(f"frame_probe_top{num}", correct_N, chance, said, title=f"{title} top-{num}")

    def heldout(self, rows: Sequence[ResultRow], *rest: Any) -> float:
        return float(rows[0].context["head"]["heldout_top1"])


def _unfit(features: FeatureProtocol, stages: Sequence[str]) -> Iterator[tuple[str, object, str, object]]:
    """Features that are no vectors of frames: name, value, rule, way out."""
    if features.num_clips != 1:
        yield "num_clips", features.num_clips, "must be 1: frames of several clips are not averaged", 1
    if features.pool not in (FeatureProtocol.pool, "frames"):
        yield "pool", features.pool, "must be frames: the head takes a vector of each", "frames"
    if len(stages) != 1:
        yield "stages", features.stages, "must name one stage", stages[-1]


# ---- training


class _Found(NamedTuple):
    """What a head says of the test videos. scores_NK: logits, in the order of the classes; NaN where it is unreadable. about: plain types."""

    scores_NK: np.ndarray
    classes: tuple[str, ...]
    about: dict[str, Any]


class Choice(NamedTuple):
    """What a head is trained with."""

    learning_rate: float
    weight_decay: float


def _found(subject: Subject, seen: Seen, config: FrameProbeConfig, tools: Tools) -> _Found:
    """Choose on held-out train, fit on all of train, look at test once."""
    stage = subject.protocol.stage_names[-1]
    x_NTD, y_N = _frames(subject, seen.train, stage)[seen.train.readable], readable_train(seen.train)[1]
    classes = np.array(sorted(set(y_N)), dtype=object)
    (parts,) = held_out(
        seen.train, ProbeProtocol(holdout_fraction=config.holdout_fraction, num_holdouts=1, seed=tools.seed)
    )
    place = np.cumsum(seen.train.readable) - 1  # among all videos of train -> among the readable ones
    fit_on, score_on = (place[part] for part in parts)
    grid = {}
    for choice in (Choice(*pair) for pair in product(config.learning_rates, config.weight_decays)):
        scores_NK = head_scores(x_NTD[fit_on], y_N[fit_on], x_NTD[score_on], classes, config, choice, tools)
        grid[choice] = float((classes[scores_NK.argmax(axis=1)] == y_N[score_on]).mean())
    chosen = max(grid, key=lambda choice: (grid[choice], choice.weight_decay, -choice.learning_rate))
    test_NTD = _frames(subject, seen.test, stage)
    readable = seen.test.readable
    scores_NK = np.full((len(test_NTD), len(classes)), np.nan)
    if readable.any():
        scores_NK[readable] = head_scores(x_NTD, y_N, test_NTD[readable], classes, config, chosen, tools)
    about = {
        "chosen": {**chosen._asdict(), "on": "held-out part of train"},
        "heldout_top1": grid[chosen],
        "num_heldout": len(score_on),
        "grid": [{**choice._asdict(), "heldout_top1": value} for choice, value in grid.items()],
    }
    return _Found(scores_NK, tuple(classes), about)


def _frames(subject: Subject, features: Features, stage: str) -> np.ndarray:
    """The vectors of the frames of each video, NTD."""
    width = subject.network.info.stage(stage).channels
    return features.values_ND.reshape(len(features.values_ND), -1, width)


def head_scores(
    train_NTD: np.ndarray,
    labels_N: np.ndarray,
    test_NTD: np.ndarray,
    classes: np.ndarray,
    config: FrameProbeConfig,
    choice: Choice,
    tools: Tools,
) -> np.ndarray:
    """Logits NK of videos, of a head that has learned from others; vectors are brought to mean 0, deviation 1 on these.

    Args:
        train_NTD, test_NTD: a vector of each frame. labels_N: of what is learned from. classes: sorted, the order of the logits.
    """
    mean_D, deviation_D = train_NTD.mean(axis=(0, 1)), train_NTD.std(axis=(0, 1))
    x, asked = (
        _maps((v - mean_D) / np.where(deviation_D > 0, deviation_D, 1), tools.device) for v in (train_NTD, test_NTD)
    )
    y = torch.from_numpy(np.searchsorted(classes, labels_N)).to(tools.device)
    head = _trained(x, y, len(classes), config, choice, tools)
    with torch.inference_mode():
        parts = [head(part) for part in asked.split(4 * config.batch_size)]
    return torch.cat(parts).double().cpu().numpy()


def _maps(values_NTD: np.ndarray, device: str) -> Tensor:
    """Vectors of frames as maps of one cell, NDT11."""
    return (
        torch.from_numpy(np.ascontiguousarray(values_NTD, dtype=np.float32)).to(device).transpose(1, 2)[..., None, None]
    )


def _trained(
    maps_NDT11: Tensor, y_N: Tensor, num_classes: int, config: FrameProbeConfig, choice: Choice, tools: Tools
) -> nn.Module:
    settings = FinetuneSettings(
        head=config.head,
        head_width=config.head_width,
        head_layers=config.head_layers,
        dropout=config.dropout,
        num_frames=maps_NDT11.shape[2],
    )
    head = build_head(settings, maps_NDT11.shape[1], num_classes, seed=tools.seed).to(tools.device).train()
    rng, num = np.random.default_rng(tools.seed), len(maps_NDT11)
    steps = config.epochs * -(-num // config.batch_size)
    optimizer = torch.optim.AdamW(head.parameters(), lr=choice.learning_rate, weight_decay=choice.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if "cuda" in tools.device else []):
        torch.manual_seed(tools.seed)  # of dropout
        for _ in range(config.epochs):
            for batch in torch.from_numpy(rng.permutation(num)).split(config.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(head(maps_NDT11[batch]), y_N[batch]).backward()
                optimizer.step()
                schedule.step()
    return head.eval()
