"""What a recipe may say: one dataclass per kind, composed from the options of the rooms that use them.

Values that are only names (an optimizer, a decoder) are checked by the room that knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ssvid.classifiers.protocol import HEADS_OF_A_WIDTH, HEADS_OF_LAYERS, FinetuneProtocol, FinetuneSettings
from ssvid.data.config import DataConfig, LoaderConfig
from ssvid.data.readers.shelf import names_with_list
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.features.protocol import (
    BaselineProtocol,
    FeatureProtocol,
    OnlineProtocol,
    ProbeProtocol,
    RetrievalProtocol,
    TrackingBaselines,
)
from ssvid.recipe.options import make_evaluation_config
from ssvid.recipe.yaml_text import MISSING
from ssvid.settings import IDLE
from ssvid.train.config import FinetuneOptimConfig, LoggerConfig, MonitorConfig, PretrainOptimConfig, TrainerConfig
from ssvid.types import FLOW


@dataclass
class BackboneConfig:
    """Which network. name: see ``ssvid backbones``. options: keyword arguments of that network."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TaskConfig:
    """What is learned. name: see ``ssvid tasks``. options: fields of the task's own Config.

    placebo: train with the answers of other videos, the control row of every evaluation.
    """

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)
    placebo: bool = False


@dataclass
class TaskEntry:
    """One of several tasks. name, options: as for a single task. weight: of its loss (or of its turn).

    label: its name in metrics and weights; "" is ``name``. Two entries of one task need two labels.
    """

    name: str = MISSING
    label: str = ""
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PretrainRecipe:
    """A backbone learns from unlabeled videos.

    kind: ``pretrain``. seed: of the first weights, of every random draw, and of what is held out.
    tasks: several tasks at once, each a group of keys as in ``TaskEntry``; ``task.options`` then says how they share the
        steps (``schedule``) and the videos (``videos``), and ``task.name`` is left out.
    init_from: weights to start from: a checkpoint, run folder, export or ``hf://owner/name`` of ours; ``torchvision:NAME``;
        a .pth, .pt or .safetensors state dict. "" starts from the seed.
    init_partial: accept weights that fill only a part; every later result says so.
    init_inflate: repeat 2D kernels over time and divide by their length; inflated networks do so unasked.
    init_which: of a file that holds the network several times, a word before the keys of the one that is meant:
        ``encoder_q``, ``teacher``. "" where there is one.
    """

    kind: str = "pretrain"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    tasks: list[Any] = field(default_factory=list)
    optim: PretrainOptimConfig = field(default_factory=PretrainOptimConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig, metadata=IDLE)
    monitor: MonitorConfig = field(default_factory=MonitorConfig, metadata=IDLE)
    online: OnlineProtocol = field(default_factory=OnlineProtocol, metadata=IDLE)
    init_from: str = ""
    init_partial: bool = False
    init_inflate: bool = False
    init_which: str = ""


@dataclass
class ProbeBackboneConfig:
    """The network of ``--backbone random``, or of weights of another program; a checkpoint or an export brings its own.

    name: see ``ssvid backbones``; "" where none is named. options: keyword arguments of that network.
    """

    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluationRecipe:
    """What the recipes of all evaluations say.

    seed: of the random row, and of all that the evaluation draws.
    protocol: a named protocol (``ssvid protocols``), whose settings lie below those of the recipe. folds: official splits
        to evaluate on, one after the other; [] is ``data.fold`` alone. seeds: as many evaluations; [] is ``seed`` alone.
    baselines: rows beside the network's.
    """

    kind: str = ""
    protocol: str = ""
    seed: int = 0
    seeds: list[int] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    data: DataConfig = field(default_factory=DataConfig)
    backbone: ProbeBackboneConfig = field(default_factory=ProbeBackboneConfig)
    baselines: BaselineProtocol = field(default_factory=BaselineProtocol, metadata=IDLE)

    @property
    def shown(self) -> FeatureProtocol:
        """How videos are shown to networks, as far as the recipe says it by itself."""
        return getattr(self, "features", FeatureProtocol())

    def asks(self) -> dict[str, Any]:
        """The evaluations that are asked for, by their names, with the options of each; the first one chooses what is chosen."""
        raise NotImplementedError


@dataclass
class QuestionConfig:
    """Which evaluation is asked. name: see ``ssvid evaluations``. options: fields of the evaluation's own Config."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ProbedConfig(QuestionConfig):
    """Another question than the linear probe and k-NN. name: ``alignment``; "" asks these. options: fields of its own Config."""

    name: str = ""


@dataclass
class ProbeRecipe(EvaluationRecipe):
    """What a frozen backbone is worth, measured on labeled videos.

    kind: ``probe``.
    features: clips per video, their length and size, stages and pooling. probe: linear probe and k-NN.
    evaluation: another question in their place.
    """

    kind: str = "probe"
    features: FeatureProtocol = field(default_factory=FeatureProtocol)
    probe: ProbeProtocol = field(default_factory=ProbeProtocol)
    evaluation: ProbedConfig = field(default_factory=ProbedConfig)

    def asks(self) -> dict[str, Any]:
        """The linear probe, k-NN, and the probe with few labels; or the evaluation that is named."""
        if self.evaluation.name:
            return {self.evaluation.name: make_evaluation_config(self.evaluation.name, self.evaluation.options)}
        return dict.fromkeys(("linear_probe", "knn", "low_shot"), self.probe)


@dataclass
class RetrieveRecipe(EvaluationRecipe):
    """Whether test videos find their class among the training videos, by frozen features.

    kind: ``retrieve``. features: as of a probe. retrieval: which neighbors count, and in whose manner.
    """

    kind: str = "retrieve"
    features: FeatureProtocol = field(default_factory=FeatureProtocol)
    retrieval: RetrievalProtocol = field(default_factory=RetrievalProtocol)

    def asks(self) -> dict[str, Any]:
        """Retrieval alone."""
        return {"retrieval": self.retrieval}


@dataclass
class FinetuneRecipe(EvaluationRecipe):
    """A network learns labels, whole or (``finetune.frozen``) its head alone.

    kind: ``finetune``. seed: of the head, of the random row, and of all that training draws.
    finetune: how it is trained, how its epoch is chosen and how it is tested.
    streams: several networks that are trained one after the other and answer together, by their names: for each a group of
        what it has of its own, out of ``backbone``, ``data`` (``modality`` and ``flow``), ``finetune`` and ``optim``. Their
        class probabilities are averaged; each has its rows, too.
    loader: its batches are ``finetune.batch_size``, one clip of each video. baselines: each network among them is one more
    training.
    """

    kind: str = "finetune"
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    streams: dict[str, Any] = field(default_factory=dict)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig, metadata=IDLE)

    def asks(self) -> dict[str, Any]:
        """Fine-tuning alone."""
        return {"finetune": FinetuneProtocol(**vars(self.finetune), optim=self.optim)}


@dataclass
class TrackRecipe(EvaluationRecipe):
    """How far a frozen backbone's features follow what is known of one frame through a video.

    kind: ``track``. track: how labels are carried, and what is scored. baselines: rows beside the network's.
    """

    kind: str = "track"
    track: PropagationProtocol = field(default_factory=PropagationProtocol)
    baselines: TrackingBaselines = field(default_factory=TrackingBaselines, metadata=IDLE)  # type: ignore[assignment]

    def asks(self) -> dict[str, Any]:
        """Label propagation alone."""
        return {"label_propagation": self.track}


@dataclass
class EvaluateRecipe(EvaluationRecipe):
    """One evaluation of a frozen backbone, ours or that of another package.

    kind: ``evaluate``. features: as of a probe. evaluation: which one, and its options.
    """

    kind: str = "evaluate"
    features: FeatureProtocol = field(default_factory=FeatureProtocol)
    evaluation: QuestionConfig = field(default_factory=QuestionConfig)

    def asks(self) -> dict[str, Any]:
        """The evaluation that is named."""
        return {self.evaluation.name: make_evaluation_config(self.evaluation.name, self.evaluation.options)}


Recipe = PretrainRecipe | ProbeRecipe | RetrieveRecipe | FinetuneRecipe | TrackRecipe | EvaluateRecipe

KINDS: dict[str, type] = {
    "pretrain": PretrainRecipe,
    "probe": ProbeRecipe,
    "retrieve": RetrieveRecipe,
    "finetune": FinetuneRecipe,
    "track": TrackRecipe,
    "evaluate": EvaluateRecipe,
}


class Used(NamedTuple):
    """When a key has an effect. decider: path of the key that says so. values: under which it is used, or a function that
    returns them; ``off``: under all but these instead.
    """

    decider: str
    values: tuple[Any, ...] | Callable[[], tuple[Any, ...]]
    off: bool = False

    def is_used(self, value: Any) -> bool:
        """Whether the key has an effect under this value of the decider."""
        return (value in self._values) != self.off

    @property
    def words(self) -> str:
        """The values under which it is used."""
        return ("any but " if self.off else "") + " or ".join(map(str, self._values))

    @property
    def _values(self) -> tuple[Any, ...]:
        return self.values() if callable(self.values) else self.values


# A key that is set and does nothing misleads. Keys that end in a dot are groups: all that is below them, but the decider.
USED_ONLY_WHEN: dict[str, Used] = {
    "optim.momentum": Used("optim.name", ("sgd",)),
    "optim.betas": Used("optim.name", ("adam", "adamw")),
    "optim.step_epochs": Used("optim.schedule", ("step",)),
    "optim.step_gamma": Used("optim.schedule", ("step",)),
    "logger.project": Used("logger.wandb", ("offline", "online")),
    **{
        f"online.{key}": Used("online.every_epochs", (0,), off=True)
        for key in ("num_train", "num_test", "knn_k", "features.")
    },
    "online.tracking.": Used("online.tracking.every_epochs", (0,), off=True),
    "monitor.max_vectors": Used("monitor.features", (True,)),
    "monitor.best_metric": Used("monitor.keep_best", (True,)),
    "probe.": Used("evaluation.name", ("",)),
    **{f"probe.{key}": Used("probe.solver", ("lbfgs",)) for key in ("regularization", "max_iterations")},
    **{f"probe.{key}": Used("probe.solver", ("sgd",)) for key in ("learning_rates", "weight_decays")},
    **{f"probe.head_{key}": Used("probe.solver", ("sgd",)) for key in ("epochs", "batch_size", "momentum", "schedule")},
    "finetune.min_area": Used("finetune.crop", ("area",)),
    "finetune.max_aspect": Used("finetune.crop", ("area",)),
    "finetune.head_norm": Used("finetune.head", ("linear",)),
    "finetune.head_width": Used("finetune.head", HEADS_OF_A_WIDTH),
    "finetune.head_layers": Used("finetune.head", HEADS_OF_LAYERS),
    "finetune.layer_decay": Used("finetune.frozen", (False,)),
    "finetune.jitter_probability": Used("finetune.jitter", ([0.0, 0.0, 0.0, 0.0],), off=True),
    **{
        f"finetune.{key}": Used("finetune.holdout_fraction", (0.0,), off=True)
        for key in ("every_epochs", "holdout_clips", "refit")
    },
    "loader.global_batch": Used("kind", ("pretrain",)),
    "loader.clips_per_video": Used("kind", ("pretrain",)),
    "trainer.val_every_epochs": Used("kind", ("pretrain",)),
    "trainer.pictures": Used("kind", ("pretrain",)),
    "data.val_fraction": Used("kind", ("pretrain",)),
    "data.segment_seconds": Used("kind", ("pretrain",)),
    "data.gray_range": Used("data.name", ("manifest",), off=True),
    "data.fps": Used("data.name", ("manifest",), off=True),
    "data.list": Used("data.name", names_with_list),
    "data.flow.": Used("data.modality", (FLOW,)),
    "data.out_of_domain.list": Used("data.out_of_domain.name", names_with_list),
    **{f"data.out_of_domain.{key}": Used("kind", ("pretrain",)) for key in ("name", "root", "split", "frame_step")},
}


def dead_rules(known: Iterable[str]) -> Iterator[tuple[str, Used]]:
    """Each of the paths that something else can switch off, with the rule."""
    for path in known:
        for key, rule in USED_ONLY_WHEN.items():
            if path == key or (key.endswith(".") and path.startswith(key) and path != rule.decider):
                yield path, rule
