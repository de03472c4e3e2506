"""``ssvid.speed_curve`` and ``ssvid.speed_up``: what a trained task says of a whole video, and which frames a film of it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from scipy.special import expit

from ssvid.apps.asking import Asker, Heard, VersionAnswers, ask
from ssvid.apps.shots import shot_starts
from ssvid.apps.speedup import (
    SpeedUpConfig,
    fit_length,
    frame_map,
    natural_factors,
    smoothed,
    uniform_map,
    with_every_shot,
)
from ssvid.apps.timeline import Timeline, averaged_at, curve_at
from ssvid.backbones import Backbone
from ssvid.bounds import AtLeast, OneOf, check
from ssvid.composite import CompositeTask
from ssvid.errors import CheckpointError, DataError, RecipeError, did_you_mean
from ssvid.files import takes_paths
from ssvid.programs.footage import OpenedVideo, open_own_video
from ssvid.programs.trained import checkpoint_file, recipe_of, trained_networks
from ssvid.progress import Progress, every_tenth, speaker
from ssvid.ranks import resolve_device
from ssvid.recipe.load import load_recipe
from ssvid.recipe.schema import PretrainRecipe
from ssvid.tasks import ClipQuestion, PretextTask
from ssvid.types import RGB
from ssvid.weights.checkpoints import read_checkpoint, weights_sha256

_HOPS_PER_WINDOW = 4
_MOST_ALIKE = 0.7  # of a video: from so much on a speed-up has next to nothing to go by


@dataclass(frozen=True)
class CurveConfig:
    """How a task is asked of a whole video. window: frames of a clip; 0 is as many as in the task's validation.

    hop: frames from one window to the next; 0 is a quarter of a window. fps: the rate at which the video is shown to the
    network; 0 is its own. overlap: a frame has the answer of the window in whose ``middle`` it is, between two middles evenly
    from one to the other; or the ``mean`` over all windows in which it is. task: of a network that was trained on several.
    batch_size: clips of a forward pass.
    """

    window: Annotated[int, AtLeast(0)] = 0
    hop: Annotated[int, AtLeast(0)] = 0
    fps: Annotated[float, AtLeast(0)] = 0.0
    overlap: Annotated[str, OneOf("middle", "mean")] = "middle"
    task: str = ""
    batch_size: Annotated[int, AtLeast(1)] = 32


@dataclass(frozen=True)
class SpeedCurve:
    """What a task says of every frame of a video.

    seconds_T: when each frame is shown. probs_T: the probability that the video around it is as ``says`` says ("sped up"); near
    0 it is as ``otherwise`` says. fps: at which the network saw the video. window, hop: in frames of that rate. shots: number of the
    first frame of each shot; a window that holds a cut tells little.
    """

    seconds_T: np.ndarray
    probs_T: np.ndarray
    says: str
    otherwise: str
    fps: float
    window: int
    hop: int
    shots: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpeedUp:
    """Which frames a film shows that is sped up where the video still looks natural.

    film_frames: the number of the video's frame that each frame of the film shows; uniform_frames: of a film of the same length that
    is sped up alike everywhere. fps: of both films. natural_N: V, the largest factor at which the video looks natural, and
    speeds_N: S, how many times as fast the film plays, both at every 1 / fps seconds of the video.
    """

    curve: SpeedCurve
    film_frames: np.ndarray
    uniform_frames: np.ndarray
    fps: float
    natural_N: np.ndarray
    speeds_N: np.ndarray

    @property
    def factor(self) -> float:
        """How many times shorter the film is: the harmonic mean of its speeds."""
        return (len(self.speeds_N) - 1) / (len(self.film_frames) - 1)

    @property
    def seconds(self) -> float:
        """How long the film is."""
        return len(self.film_frames) / self.fps


@dataclass(frozen=True)
class ArrayVideo:
    """A video in memory. frames_THWC: uint8."""

    frames_THWC: np.ndarray
    fps: float

    @property
    def num_frames(self) -> int:
        """Of the whole video."""
        return len(self.frames_THWC)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.frames_THWC.shape[1], self.frames_THWC.shape[2]

    def frames(self) -> Iterator[np.ndarray]:
        """All frames in turn."""
        yield from self.frames_THWC

    def seconds(self) -> np.ndarray:
        """When each frame is shown."""
        return np.arange(self.num_frames) / self.fps


# ---- the two functions


@takes_paths("checkpoint")
def speed_curve(
    video: str | Path | np.ndarray,
    *,
    checkpoint: str | Path,
    settings: CurveConfig | None = None,
    array_fps: float = 25.0,
    device: str = "auto",
    show_progress: bool = True,
) -> SpeedCurve:
    """What a trained task says of every frame of a video: the speediness curve of SpeedNet (Benaim et al., CVPR 2020, section 4).

    Args:
        video: a file, a folder of numbered pictures, or an array, uint8 THWC. array_fps: frames per second of an array.
        checkpoint: a run folder or a checkpoint of a task that answers clip by clip, such as ``speediness``.
        settings: None is ``CurveConfig()``. device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        SsvidError: any mistake in the video, the checkpoint or the settings.
    """
    settings = checked_settings(settings)
    asked = Asked.of(open_any(video, array_fps), load_asker(checkpoint, settings, device), settings)
    return asked.watch(every_tenth(speaker(show_progress), "frames")).curve


@takes_paths("checkpoint")
def speed_up(
    video: str | Path | np.ndarray,
    *,
    checkpoint: str | Path,
    factor: float = 0.0,
    seconds: float = 0.0,
    settings: CurveConfig | None = None,
    speed: SpeedUpConfig | None = None,
    array_fps: float = 25.0,
    device: str = "auto",
    show_progress: bool = True,
) -> SpeedUp:
    """Which frames a film shows that is ``factor`` times shorter, or ``seconds`` long, and sped up more where that looks natural.

    Args:
        factor, seconds: exactly one of them. speed: None is ``SpeedUpConfig()``. The rest as ``speed_curve``.

    Raises:
        SsvidError: any mistake in the video, the checkpoint, the settings or the length.
    """
    settings, speed = checked_settings(settings), checked_speed(speed)
    opened = open_any(video, array_fps)
    asker = load_asker(checkpoint, settings, device)
    require_speed(asker)
    asked = Asked.of(opened, asker, settings)
    num_out = num_film_frames(asked.film, factor, seconds)
    watched = asked.watch(every_tenth(speaker(show_progress), "frames"), speed.factors)
    return watched.sped_up(num_out, speed)


def checked_settings(settings: CurveConfig | None) -> CurveConfig:
    """The settings, or those that are usual. Raises RecipeError where one is not legal."""
    settings = settings or CurveConfig()
    check(settings)
    return settings


def checked_speed(speed: SpeedUpConfig | None) -> SpeedUpConfig:
    """The same of a speed-up."""
    speed = speed or SpeedUpConfig()
    check(speed)
    return speed


# ---- the network


@takes_paths("checkpoint")
def load_asker(checkpoint: str | Path, settings: CurveConfig, device: str = "auto") -> Asker:
    """The trained network of a checkpoint, ready to be asked.

    Raises:
        CheckpointError: it cannot be read, or its task does not answer clip by clip. RecipeError: the window does not fit it.
    """
    trained = read_checkpoint(checkpoint_file(checkpoint, "A curve over time"))
    config: PretrainRecipe = load_recipe(recipe_of(trained), (), kind="pretrain").recipe  # type: ignore[assignment]
    if config.data.modality != RGB:
        raise CheckpointError(
            f"{trained.path} was trained on {config.data.modality}, and here it is shown pictures. Take a network "
            f"that was trained on pictures (data.modality={RGB})."
        )
    backbone, task = trained_networks(config, trained)
    asked = asked_task(task, settings.task, trained.path)
    question = asked.clip_question()
    assert question is not None  # only such tasks are chosen
    window = settings.window or question.num_frames
    _check_window(window, question, backbone)
    hop = settings.hop or max(1, window // _HOPS_PER_WINDOW)
    return Asker(
        asked,
        backbone,
        question,
        window,
        hop,
        resolve_device(device),
        settings.batch_size,
        weights_sha256(trained.backbone_state),
    )


def _check_window(window: int, question: ClipQuestion, backbone: Backbone) -> None:
    """Raise RecipeError where the network or its task cannot take so many frames."""
    info, usual = backbone.info, question.num_frames
    least = max(2, info.min_frames)
    if window < least or window > (info.max_frames or window):
        ends = f"at least {least}" + (f" and at most {info.max_frames}" if info.max_frames else "")
        raise RecipeError(
            f"window ({window}) must be {ends} frames for backbone {info.name}. Leave it out: the task's own is {usual}."
        )
    if window % question.multiple:
        raise RecipeError(
            f"window ({window}) must be a multiple of {question.multiple}, the parts that the task cuts a clip into. Leave it out: "
            f"the task's own is {usual}."
        )


def asked_task(task: PretextTask, name: str, path: Any) -> PretextTask:
    """The task itself, or of several the one of that name, or the first that answers clip by clip."""
    members = dict(task.members) if isinstance(task, CompositeTask) else {type(task).__name__: task}
    answering = {label: one for label, one in members.items() if one.clip_question() is not None}
    if not answering:
        raise CheckpointError(
            f"the network in {path} was trained on a task that does not answer clip by clip ({', '.join(members)}), and here "
            "it is asked of every clip of a video. Name a run of such a task: ssvid pretrain "
            "pretrain/speediness_tiny data.root=FOLDER makes one."
        )
    if name and isinstance(task, CompositeTask):
        if name not in answering:
            raise RecipeError(
                f"task ({name!r}) must be one that answers clip by clip. {did_you_mean(name, list(answering))}"
            )
        return answering[name]
    return next(iter(answering.values()))


def require_speed(asker: Asker) -> None:
    """Make sure that the task tells speeds.

    Raises:
        CheckpointError: it tells something else.
    """
    if not asker.question.is_speed:
        raise CheckpointError(
            f"the network tells whether a clip is {asker.question.says}, not how fast it is played, and nothing can be sped up or "
            "slowed down by that. Name a run of the task speediness; of this one ssvid speed draws the curve, without --speed-up and --seconds."
        )


# ---- the video


def open_any(video: str | Path | np.ndarray, array_fps: float, decoder: str = "auto") -> OpenedVideo | ArrayVideo:
    """A video of one's own: a path, or an array.

    Raises:
        DataError: it cannot be read, or the array is no video.
    """
    if not isinstance(video, np.ndarray):
        return open_own_video(video, decoder)
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
        raise DataError(
            f"video, an array of shape {video.shape} and type {video.dtype}, must be frames: uint8 (T, H, W, 3), RGB, at least one."
        )
    if not 0 < array_fps < 10_000:
        raise DataError(f"array_fps ({array_fps}) must be above 0 and below 10000. 25 is usual.")
    return ArrayVideo(video, array_fps)


def num_film_frames(film: Timeline, factor: float, seconds: float) -> int:
    """How many frames a film has that is so many times shorter, or so long.

    Raises:
        RecipeError: both or neither is given. DataError: it would be longer than the video, or of fewer than two frames.
    """
    if (factor > 0) == (seconds > 0):
        raise RecipeError("factor and seconds: exactly one of them must be above 0. Set factor=2, or seconds=60.")
    count, is_factor = len(film), factor > 0
    asked = f"a speed-up of {factor:g}" if is_factor else f"a film of {seconds:g} s"
    num_out = round(count / factor) if is_factor else round(seconds * film.fps)
    if num_out > count:
        least = "at least 1" if is_factor else f"at most {count / film.fps:g} s"
        raise DataError(
            f"{asked} has {num_out} frames, more than the video, which has {count} ({count / film.fps:g} s): nothing is slowed down."
            f" Ask for {least}."
        )
    if num_out < 2:
        most = f"at most {count / 2:g}" if is_factor else f"at least {2 / film.fps:g} s"
        raise DataError(
            f"{asked} has {num_out} frames, and it must have at least 2: the first and the last. Ask for {most}."
        )
    return num_out


@dataclass(frozen=True)
class Asked:
    """A video and the network that is asked of it. shown: the beats that the network sees; film: those that a film is made of.

    seconds_T: when each frame of the video is shown.
    """

    video: OpenedVideo | ArrayVideo
    asker: Asker
    settings: CurveConfig
    shown: Timeline
    film: Timeline
    seconds_T: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, video: OpenedVideo | ArrayVideo, asker: Asker, settings: CurveConfig) -> Asked:
        """Make sure that the video is long enough.

        Raises:
            DataError: it is not.
        """
        seconds_T, notes = video.seconds(), []
        is_even = isinstance(video, ArrayVideo) or not (video.row.variable_fps or "time: " in video.row.notes)
        film = Timeline.even(len(seconds_T), video.fps) if is_even else Timeline.of_times(seconds_T, video.fps)
        shown = Timeline.of_times(seconds_T, settings.fps) if settings.fps else film
        if not is_even:
            notes.append(
                f"the video's frames have unequal durations; it is shown to the network at {shown.fps:g} per second"
            )
        if isinstance(video, OpenedVideo) and video.row.fps <= 0:
            notes.append(f"the video tells no frame rate; {video.fps:g} frames per second are assumed")
        if len(shown) < asker.window:
            told = f" at {shown.fps:g} per second" if settings.fps else ""
            least = max(2, asker.backbone.info.min_frames)
            way = (
                f"Name a longer video{f', or a shorter window, --window {len(shown)}' if len(shown) >= least else ''}."
            )
            if isinstance(video, ArrayVideo):
                way = "Take more frames, or a network that judges shorter windows."
            raise DataError(
                f"the video has {len(shown)} frames{told}, and the network judges windows of {asker.window}. {way}"
            )
        return cls(video, asker, settings, shown, film, seconds_T, tuple(notes))

    def watch(self, told: Progress, factors: Sequence[float] = (1.0,), keep_maps: Any = None) -> Watched:
        """Read the video once and ask of all its windows, also of versions that are so many times as fast.

        Raises:
            DecodeError: a frame cannot be read.
        """
        return Watched(self, ask(self.video, self.shown, self.asker, factors, told, keep_maps))


@dataclass(frozen=True)
class Watched:
    """What was said of a video."""

    asked: Asked
    heard: Heard = field(repr=False)

    def probs_at(self, answers: VersionAnswers, places_N: np.ndarray) -> np.ndarray:
        """The probability at places of the beats that were shown, from one version."""
        asker, at = self.asked.asker, averaged_at if self.asked.settings.overlap == "mean" else curve_at
        return at(answers.starts, expit(answers.logits), asker.window, places_N, answers.factor)

    @property
    def curve(self) -> SpeedCurve:
        """At every frame."""
        asked, question = self.asked, self.asked.asker.question
        return SpeedCurve(
            asked.seconds_T,
            self.probs_at(self.heard.answers[0], asked.shown.places_T),
            question.says,
            question.otherwise,
            asked.shown.fps,
            asked.asker.window,
            asked.asker.hop,
            asked.shown.frames_N[shot_starts(self.heard.changes_N)],
            asked.notes,
        )

    def sped_up(self, num_out: int, speed: SpeedUpConfig) -> SpeedUp:
        """The frames of a film of so many frames; versions must have been asked of.

        Raises:
            DataError: it has fewer frames than the video has shots.
        """
        film, answers, curve = self.asked.film, self.heard.answers, self.curve
        shots = curve.shots
        if num_out < len(shots):
            raise DataError(
                f"a film of {num_out} frames cannot show the {len(shots)} shots of the video, a frame of each. Ask for a speed-up of at "
                f"most {len(film) / len(shots):.4g}, or for at least {len(shots) / film.fps:.3g} s."
            )
        places_N = np.arange(len(film)) / film.fps * self.asked.shown.fps
        probs_VN = np.stack([self.probs_at(one, places_N) for one in answers])
        factors = np.array([one.factor for one in answers])
        natural_N = natural_factors(probs_VN, factors, speed.threshold, speed.rule)
        speeds_N = fit_length(smoothed(natural_N, (speed.smooth_seconds * film.fps) ** 2), num_out)
        film_frames, uniform_frames = (
            film.frames_N[shown] for shown in (frame_map(speeds_N, num_out), uniform_map(len(film), num_out))
        )
        film_frames = with_every_shot(film_frames, shots, len(self.asked.seconds_T))
        curve = replace(curve, notes=(*curve.notes, *_doubts(natural_N, factors)))
        return SpeedUp(curve, film_frames, uniform_frames, film.fps, natural_N, speeds_N)


def _doubts(natural_N: np.ndarray, factors: np.ndarray) -> Iterator[str]:
    """Where what looks natural tells next to nothing: the network may never have seen such videos."""
    for factor, told in (
        (factors[-1], f"up to {factors[-1]:.3g} times as fast, the most that was tried"),
        (1.0, "at no speed-up at all"),
    ):
        share = float((natural_N == factor).mean())
        if share > _MOST_ALIKE:
            yield (
                f"{100 * share:.0f} % of the video look natural {told}: the network may not know such videos, and where the film is fast "
                "then says little"
            )
