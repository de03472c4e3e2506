"""What an evaluation is: a question about networks, put to labeled videos, and answered by numbers.

An evaluation is one file with one class, registered by ``@register_evaluation(name)``; the files of this package are found by
themselves, and those of other packages through the entry points ``ssvid.evaluations``. The loop that asks it of every network
of a table, and all that evaluations share, is in ``ssvid.programs.evaluate``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np

from ssvid.backbones import Backbone
from ssvid.data.config import LoaderConfig
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError
from ssvid.evals.holdouts import Parts, held_out
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol
from ssvid.features.store import Features, Listed
from ssvid.intervals import Interval
from ssvid.progress import Say
from ssvid.registry import Registry
from ssvid.results.rows import ResultRow
from ssvid.train.config import LoggerConfig, TrainerConfig
from ssvid.types import MODALITIES

NEEDS = ("vectors", "maps", "training")  # what an evaluation makes its numbers of

evaluations = Registry("evaluation", "ssvid.evaluations", "ssvid.evals")
register_evaluation = evaluations.register

Made = TypeVar("Made")


# ---- what an evaluation is handed


@dataclass(frozen=True)
class LabeledData:
    """The videos of one split and seed. manifest: the whole table. train, test: its rows that are learned from and that are
    scored, unreadable ones included (they are counted, never replaced); train is () where nothing is learned.
    """

    manifest: Manifest
    train: tuple[VideoRow, ...]
    test: tuple[VideoRow, ...]

    @classmethod
    def checked(
        cls, manifest: Manifest, train: Sequence[VideoRow], test: Sequence[VideoRow], *, labels: bool = True
    ) -> LabeledData:
        """The same, once it is sure that there is something to learn from and to test on; no video is read.

        Args:
            labels: whether classes are learned (``Evaluation.needs_labels``); without, videos to score are enough.

        Raises:
            DataError: says what is missing and how to get it.
        """
        if labels:
            check_rows(manifest, train, test)
        elif not test:
            raise DataError(
                f"there is no video to score; the manifest's splits are {', '.join(manifest.splits()) or 'empty'}. Name the "
                "split that is scored with data.test_split."
            )
        return cls(manifest, tuple(train), tuple(test))

    @property
    def num_train(self) -> int:
        """How many training videos can be read."""
        return sum(row.is_readable for row in self.train)

    def in_batches_of(self, size: int) -> LabeledData:
        """Both sides without the videos that do not fill a last batch, as loaders with drop_last deliver them."""
        train, test = (rows[: len(rows) - len(rows) % size] or rows for rows in (self.train, self.test))
        return replace(self, train=train, test=test)


@dataclass(frozen=True)
class Subject:
    """A network that stands in the table. name: of its rows. protocol: how it is shown the videos."""

    name: str
    network: Backbone
    protocol: FeatureProtocol

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where the weights come from: "stage", "content_ids", "placebo", "partial" and more."""
        return getattr(self.network, "provenance", {})

    @property
    def stage(self) -> str | None:
        """The deepest stage that was trained; None where all are, or none is."""
        return self.origin.get("stage")


class Side(Protocol):
    """What became of the videos of one side, train or test: ``Features`` say it, and ``VideoScores``."""

    @property
    def unreadable(self) -> tuple[Listed, ...]: ...
    @property
    def padded(self) -> tuple[str, ...]: ...
    @property
    def decoders(self) -> Mapping[str, int] | None: ...


@dataclass(frozen=True)
class Became:
    """What became of the videos of one side, for evaluations that read them themselves."""

    unreadable: tuple[Listed, ...] = ()
    padded: tuple[str, ...] = ()
    decoders: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What a network makes of the videos: a vector of each, with labels and groups; NaN where one could not be read.

    notes: what a reader of any number must know. more: what the vectors depend on beside the network and its protocol, plain types.
    """

    train: Features
    test: Features
    notes: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made once under that name: a fit that several numbers are read from."""
        return _once(self._made, name, make)


def _once(made: dict[Hashable, Any], name: Hashable, make: Callable[[], Made]) -> Made:
    if name not in made:
        made[name] = make()
    return made[name]  # type: ignore[no-any-return]


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass of options as results hold it: as it says itself (``as_dict``), or lists in the place of tuples."""
    if hasattr(settings, "as_dict"):
        return dict(settings.as_dict())
    values = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else {}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _silent(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Tools:
    """Where and how an evaluation computes.

    device: of networks that are not trained. cache_dir: for features and batch statistics; None keeps nothing. seed: of all
    that is drawn. say: tells how far it has come. loader, trainer (resolved), logger, folder, resume, recipe (resolved, plain
    types, for checkpoints and loggers), show_progress: of an evaluation that trains networks. made: what the splits and seeds of
    one command have in common.
    """

    device: str = "cpu"
    cache_dir: Path | None = None
    seed: int = 0
    say: Say = _silent
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    folder: Path = Path()
    resume: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)
    show_progress: bool = False
    made: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made once under that name for all splits and seeds of one command: a row that none of them changes."""
        return _once(self.made, name, make)

    @property
    def num_processes(self) -> int:
        """Training processes on all machines."""
        return int(self.trainer.devices) * self.trainer.num_nodes


# ---- what it gives back


class Units(NamedTuple):
    """What a number is a mean over, where that is not the test videos.

    ids: their names, ``video/object``, say. groups: the video that each belongs to: intervals are over videos. noun, nouns_of_groups:
    what a table calls them. interval: 95 % of the mean, where its terms are no shares of right answers (``Number.correct_N``).
    """

    ids: Sequence[str]
    groups: Sequence[str]
    noun: str = "objects"
    groups_noun: str = "videos"
    interval: Interval | None = None


class Number(NamedTuple):
    """One number of a network, video by video.

    metric: its name, which tables are sorted by. correct_N: for each test video whether it was right (bool), or a share
    (float); an unreadable one never is. chance: what a guess blind to the videos scores. more: what else it depends on, plain
    types. notes: what its reader must know. title: of its column in tables; "" is ``metric``. seen: what became of the
    videos, (train, test), where the evaluation has read them itself. units: what ``correct_N`` is of, where it is not of the
    test videos. With an interval of its own it holds values of any size whose mean is the number: of a number that is no mean,
    such as a ratio of sums, its ``ssvid.intervals.pseudo_values``.
    """

    metric: str
    correct_N: np.ndarray
    chance: float
    more: Mapping[str, Any] = {}
    notes: Sequence[str] = ()
    title: str = ""
    seen: tuple[Side, Side] | None = None
    units: Units | None = None


class Evaluation:
    """A question. Subclasses are registered with ``@register_evaluation(name)``, and are made without arguments.

    Config: its options, a frozen dataclass; none where it is left out. needs: "vectors" (of every video, handed to it), or
    "maps" or "training", where it reads the videos itself. verb: of the command that asks it. metrics: what the names of its
    numbers start with. needs_labels: whether it learns classes from labeled training videos; without, all that is needed is
    videos to score, and ``data.train`` is (). settings_name: what results call its options. heldout_name: what they call the score that
    chooses the form of the random network. modalities: what the clips of the videos may be made of.
    """

    Config: ClassVar[type] = type(None)
    needs: ClassVar[str] = "vectors"
    verb: ClassVar[str] = "evaluate"
    metrics: ClassVar[tuple[str, ...]] = ("",)
    needs_labels: ClassVar[bool] = True
    modalities: ClassVar[tuple[str, ...]] = MODALITIES
    settings_name: ClassVar[str] = "options"
    heldout_name: ClassVar[str] = "heldout_top1"

    def check(self, config: Any, num_train: int | None = None) -> None:
        """Raise RecipeError where the options make no sense, or do not fit so many readable training videos."""

    def check_data(self, network: Backbone, data: LabeledData, config: Any, tools: Tools) -> None:
        """Raise RecipeError or DataError for whatever the table of videos can tell to be wrong before one is read."""

    def prepare(self, features: FeatureProtocol, config: Any, network: Backbone, tools: Tools) -> tuple[Any, Any]:
        """How the videos are shown, and the options, with all filled in that follows from others or from the network."""
        return features, config

    def has_two_random_forms(self, config: Any) -> bool:
        """Whether the random network stands as initialized and with the batch statistics of training clips as well; an
        evaluation without vectors that says so has a ``heldout`` of its own.
        """
        return self.needs == "vectors"

    def baselines(
        self, wanted: Any, network: Backbone, features: FeatureProtocol, config: Any, tools: Tools
    ) -> list[Subject] | None:
        """What stands beside the networks and the random one, in the place of single frames, shuffled frames, histograms and
        trajectories; None leaves those.

        Args:
            wanted: the group ``baselines`` of the recipe. network: the architecture of the table.
        """
        return None

    def score(self, subject: Subject, seen: Seen, data: LabeledData, config: Any, tools: Tools) -> Iterator[Number]:
        """The numbers of one network. Nothing may be chosen on ``data.test``.

        Args:
            seen: its vectors; None where ``needs`` says that the evaluation reads the videos itself.
        """
        raise NotImplementedError

    def heldout(
        self, rows: Sequence[ResultRow], subject: Subject, seen: Seen, data: LabeledData, config: Any, tools: Tools
    ) -> float:
        """What a network scores on held-out train: by it the better of two random networks is chosen, and test has no say.

        The first number, of a fifth of train, where nothing is overridden.

        Args:
            rows: of this network on test, for what was chosen on train on the way.
        """
        (parts,) = held_out(seen.train, ProbeProtocol(num_holdouts=1, seed=tools.seed))
        return float(self.score_held_out(parts, subject, seen, data, config, tools).mean())

    def score_held_out(
        self, parts: Parts, subject: Subject, seen: Seen, data: LabeledData, config: Any, tools: Tools
    ) -> np.ndarray:
        """The first number, video by video, where one part of train is learned from and the other one is scored."""
        gallery, queries = parts
        few = Seen(seen.train.at(gallery), seen.train.at(queries))
        rows = LabeledData(data.manifest, *(tuple(data.train[i] for i in part) for part in parts))
        return np.asarray(next(iter(self.score(subject, few, rows, config, tools))).correct_N, dtype=np.float64)

    def draw(
        self, folder: Path, ending: str, rows: Sequence[ResultRow], seen: Seen, data: LabeledData, config: Any
    ) -> list[Path]:
        """Write pictures of what the first network does, beside the results; their paths.

        Args:
            ending: of the names of the files, where there are several splits or seeds. rows: of that network.
        """
        return []


def guess_chance(labels: Sequence[str] | np.ndarray, num: int = 1) -> float:
    """Share of the ``num`` most frequent labels: what as many guesses blind to the videos score."""
    counts = np.sort(np.unique(np.asarray(labels).astype(str), return_counts=True)[1])[::-1]
    return float(counts[:num].sum() / max(len(labels), 1))


# ---- what must be there


def check_rows(manifest: Manifest, train_rows: Sequence[VideoRow], test_rows: Sequence[VideoRow]) -> None:
    """Make sure that there is something to learn from and to test on, before a video is read.

    Raises:
        DataError: says what is missing and how to get it.
    """
    if not manifest.labels():
        raise DataError(
            f"none of the {len(manifest)} videos of the manifest has a label, and a probe needs labels. "
            "Use class folders (data.name=class_folder) or a list of paths and labels (data.name=list)."
        )
    for split, rows in (("train", train_rows), ("test", test_rows)):
        if not rows:
            raise DataError(
                f"there is no {split} video; the manifest's splits are {', '.join(manifest.splits()) or 'empty'}. "
                "Put the videos into train/<class> and test/<class>, or fill the manifest's column split."
            )
    check_labels([row for row in train_rows if row.is_readable or not row.label], test_rows, readable="readable ")
    both = {row_id(row) for row in train_rows} & {row_id(row) for row in test_rows}
    if both:
        raise DataError(
            f"{len(both)} videos are in both train and test, the first is {min(both)!r}. Give each video one split."
        )


class Labeled(Protocol):
    """A video with its class: of a list, or of a table."""

    @property
    def path(self) -> str: ...
    @property
    def label(self) -> str: ...


def check_labels(train: Sequence[Labeled], test: Sequence[Labeled], *, readable: str = "") -> None:
    """Make sure that all have a label, and that each class of test has a training video.

    Raises:
        DataError: says which has none.
    """
    for split, videos in (("train", train), ("test", test)):
        unlabeled = [video.path for video in videos if not video.label]
        if unlabeled:
            raise DataError(
                f"{len(unlabeled)} of {len(videos)} {split} videos have no label, the first is {unlabeled[0]!r}. "
                "Label them, or give them another split."
            )
    unseen = sorted({video.label for video in test} - {video.label for video in train})
    if unseen:
        raise DataError(
            f"class {', '.join(map(repr, unseen[:5]))}{' ...' if len(unseen) > 5 else ''} is in test and has no "
            f"{readable}training video: a probe cannot learn it. "
            "Add training videos of it, or take its videos out of test."
        )
