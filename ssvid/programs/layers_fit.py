"""``layers fit``: a short video -> its layers: objects with their effects and a clean background, or atlases to paint on; a report, a page."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from ssvid import stopping
from ssvid.bounds import AtLeast, OneOf, check
from ssvid.errors import DataError
from ssvid.evals.label_propagation.saving import write_labels
from ssvid.files import folder_appearing_whole, folder_beside, require_empty_folder, takes_paths, write_picture
from ssvid.layers.atlas import PRESETS, AtlasModel, fit_atlas
from ssvid.layers.background import CameraCanvas, camera_canvas
from ssvid.layers.clip import LayerClip
from ssvid.layers.detectors import Finding, find_camera, find_mask_breaks, find_movement
from ssvid.layers.motion import ClipMotion, measure_motion
from ssvid.layers.omnimatte.config import OmnimatteConfig, fit_size
from ssvid.layers.omnimatte.fitting import fit_omnimatte
from ssvid.layers.omnimatte.model import OmnimatteModel
from ssvid.programs.layers_films import mask_sheet
from ssvid.programs.layers_folder import SHEET, LayersFolder, ids_of_masks
from ssvid.programs.layers_footage import LayerFootage, open_layer_footage
from ssvid.programs.layers_report import write_report
from ssvid.programs.layers_results import Written, write_atlas, write_omnimatte
from ssvid.programs.pretrain import RUNS
from ssvid.progress import Say, every_tenth, speaker
from ssvid.train.run_folder import next_free

KINDS = ("omnimatte", "atlas")
_SHORT_SIDE_PX = {"omnimatte": 80, "atlas": 90}
_SAVE_SECONDS = 10.0

Model: TypeAlias = AtlasModel | OmnimatteModel


@dataclass(frozen=True)
class LayerSettings:
    """How layers are fitted. kind: ``omnimatte``, objects with their shadows and a clean background (Lu et al., CVPR 2021); ``atlas``,
    pictures to paint on that all frames are looked up in (Kasten et al., SIGGRAPH Asia 2021).

    iterations: 0 is as many as are usual for the kind. short_side_px: of the frames that are fitted; 0 is what is usual. preset: of an
    atlas, ``fast`` or ``published``. camera: ``static``, ``moving``, or ``auto`` to look. device: ``cpu`` or ``cuda``.
    """

    kind: Annotated[str, OneOf(*KINDS)] = "omnimatte"
    iterations: Annotated[int, AtLeast(0)] = 0
    short_side_px: Annotated[int, AtLeast(0)] = 0
    preset: Annotated[str, OneOf(*PRESETS)] = "fast"
    camera: Annotated[str, OneOf("auto", "static", "moving")] = "auto"
    seed: Annotated[int, AtLeast(0)] = 0
    device: Annotated[str, OneOf("cpu", "cuda")] = "cpu"

    @property
    def size_px(self) -> int:
        """The short side of the frames that are fitted."""
        return self.short_side_px or _SHORT_SIDE_PX[self.kind]


@dataclass(frozen=True)
class LayersResult:
    """What was fitted and written. page: open it in a browser. findings: figures with warnings."""

    folder: Path
    page: Path
    kind: str
    names: tuple[str, ...]
    num_frames: int
    findings: Sequence[Finding] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def warnings(self) -> list[str]:
        """What is wrong, in words."""
        return [finding.warning for finding in self.findings if finding.warning]

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "folder": str(self.folder),
            "page": str(self.page),
            "kind": self.kind,
            "names": list(self.names),
            "num_frames": self.num_frames,
            "figures": [asdict(finding) | {"value": plain(finding.value)} for finding in self.findings],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.kind} of {', '.join(self.names)} and the background, {self.num_frames} frames, in {self.seconds:.0f} s"
        ]
        lines += [f"{f.name}: {f.text}" + (f" ({f.beside})" if f.beside else "") for f in self.findings]
        lines += [f"warning: {warning}" for warning in self.warnings] + [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, f"page: {self.page}"])


def plain(value: float) -> float | None:
    """A number that JSON has, or None."""
    return value if value == value and abs(value) != float("inf") else None


@takes_paths("out")
def fit_layers(
    footage: LayerFootage,
    *,
    settings: LayerSettings | None = None,
    out: str | Path | None = None,
    show_progress: bool = True,
) -> LayersResult:
    """Take a short video apart into layers, and write a folder with them, a report and a page.

    All that the masks and the motion tell is checked before the fit, and the contact sheet of the masks is written before it. What is
    fitted is kept every few seconds: an interrupted fit goes on with ``resume_layers``, bit for bit.

    Args:
        footage: the video, its frames and its objects. settings: None is ``LayerSettings()``. out: a new folder; ``runs/layers``,
            numbered, where None.

    Raises:
        SsvidError: any mistake in the footage or the settings, or layers cannot be told apart; nothing is written then.
        Stopped: asked to end by a signal; KeyboardInterrupt: by Ctrl-C. Both say how to go on.
    """
    started, say = time.perf_counter(), speaker(show_progress)
    settings = settings or LayerSettings()
    check(settings)
    path = Path(out) if out is not None else next_free(RUNS, "layers")
    require_empty_folder(path)
    opened = open_layer_footage(footage, say)
    prepared = _Prepared.of(opened.clip, settings)
    folder = LayersFolder.begin(path, opened, settings.kind, asdict(settings))
    write_picture(path / SHEET, mask_sheet(opened.clip, opened.given))
    say(f"masks: {path / SHEET}; look at it: where they are wrong, layers will be")
    return _fit(folder, prepared, say, started)


@takes_paths("folder")
def resume_layers(folder: str | Path, *, show_progress: bool = True) -> LayersResult:
    """Go on with a fit that was interrupted: the same layers come out, bit for bit, as without the interruption.

    Raises:
        SsvidError: it is no such folder, has ended, or its video has gone. As ``fit_layers``.
    """
    started, say = time.perf_counter(), speaker(show_progress)
    begun = LayersFolder.open(folder, finished=False)
    if begun.facts["finished"]:
        raise DataError(
            f"the fit in {begun.path} has ended. Use it: ssvid layers compose {begun.path} --drop {begun.names[0]} --out without.mp4"
        )
    settings = LayerSettings(**begun.facts["settings"])
    return _fit(begun, _Prepared.of(begun.clip(), settings), say, started)


@takes_paths("out")
def preview_masks(footage: LayerFootage, out: str | Path, *, show_progress: bool = True) -> Path:
    """The masks that a fit would take, as a contact sheet beside a folder of PNGs that ``masks_folder`` takes; the sheet's path.

    Args:
        out: a new folder. The sheet is named after it.

    Raises:
        SsvidError: as ``fit_layers``.
    """
    path = Path(out)
    require_empty_folder(path)
    opened = open_layer_footage(footage, speaker(show_progress))
    write_mask_folder(path, opened.clip)
    sheet = path.with_name(f"{path.name}.png")
    write_picture(sheet, mask_sheet(opened.clip, opened.given))
    return sheet


def write_mask_folder(path: Path, clip: LayerClip) -> None:
    """Masks of all frames, by the numbers of the video's frames."""
    with folder_appearing_whole(path) as staged:
        for t in range(clip.num_frames):
            number = clip.first_frame + t * clip.stride_frames
            write_labels(staged / f"{number:05d}.png", ids_of_masks(clip.masks_NTHW[:, t]))


# ---- the fit


@dataclass(frozen=True)
class _Prepared:
    """All that is known before the first step. small: the clip at the size of the fit."""

    clip: LayerClip
    small: LayerClip
    motion: ClipMotion
    camera: CameraCanvas
    settings: LayerSettings
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, clip: LayerClip, settings: LayerSettings) -> _Prepared:
        """Measure, and refuse what would be garbage.

        Raises:
            DataError: masks break, the camera was lost, or what is behind an object is never seen.
        """
        small = clip.resized(*fit_size(*clip.size, settings.size_px))
        motion = measure_motion(small.frames_THWC)
        findings: list[Finding] = []
        for name, masks_THW in zip(small.names, small.masks_NTHW, strict=True):
            findings += find_mask_breaks(name, masks_THW, motion)
        camera = camera_canvas(small, motion, settings.camera)
        findings.append(find_camera(camera.inliers_T))
        for name, masks_THW in zip(small.names, small.masks_NTHW, strict=True):
            findings += find_movement(name, masks_THW, camera.canvas, needs_background=settings.kind == "omnimatte")
        return cls(clip, small, motion, camera, settings, tuple(findings))

    def fit(self, state: Mapping[str, Any] | None, keeper: _Keeper) -> Model:
        """The model; it goes on from a state where there is one."""
        settings, options = self.settings, {"seed": self.settings.seed, "device": self.settings.device}
        if settings.kind == "atlas":
            preset = PRESETS[settings.preset]
            atlas = replace(preset, iterations=settings.iterations or preset.iterations)
            keeper.total = atlas.iterations
            return fit_atlas(self.small, self.motion, atlas, on_step=keeper, state=state, **options)  # type: ignore[arg-type]
        omnimatte = OmnimatteConfig(camera=settings.camera, short_side_px=settings.size_px)
        omnimatte = replace(omnimatte, iterations=settings.iterations or omnimatte.iterations)
        keeper.total = omnimatte.iterations
        kept = {"on_step": keeper, "state": state, "camera": self.camera}
        return fit_omnimatte(self.small, self.motion, omnimatte, **kept, **options)  # type: ignore[arg-type]

    def write(self, folder: Path, model: Model) -> Written:
        """All that is made of the model."""
        if isinstance(model, AtlasModel):
            return write_atlas(folder, model, self.clip, self.small, self.camera.canvas)
        return write_omnimatte(folder, model, self.clip, self.small)


class _Keeper:
    """Looks on at every step: tells how far it is, keeps what was learned, and ends the fit where that is asked for."""

    def __init__(self, folder: LayersFolder, say: Say) -> None:
        self.folder, self.total, self._told = folder, 1, every_tenth(say, "steps")
        self._saved_at, self.saved_step = time.monotonic(), 0

    def __call__(self, model: Model, losses: Mapping[str, float]) -> None:
        del losses
        self._told(model.step, self.total)
        if stopping.requested():
            self.save(model)
            raise stopping.Stopped(f"stopped by {stopping.requested()}; step {model.step} of {self.total} is saved.")
        if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self.save(model)

    def save(self, model: Model) -> None:
        """Keep what the model has learned."""
        self.folder.save_state(model.state())
        self._saved_at, self.saved_step = time.monotonic(), model.step


@contextlib.contextmanager
def _telling_how_to_go_on(folder: LayersFolder) -> Iterator[None]:
    try:
        with stopping.heeding_signals():
            yield
    except (KeyboardInterrupt, stopping.Stopped) as error:
        raise type(error)(f"{error} Go on with: ssvid layers fit {folder.path} --resume".lstrip()) from None


def _fit(folder: LayersFolder, prepared: _Prepared, say: Say, started: float) -> LayersResult:
    for finding in prepared.findings:
        if finding.warning:
            say(f"warning: {finding.warning}")
    with _telling_how_to_go_on(folder):
        keeper = _Keeper(folder, say)
        model = prepared.fit(folder.state(), keeper)
        keeper.save(model)
        say("writing layers, films and the page")
        with folder_beside(folder.path / "results") as staged:
            written = prepared.write(staged, model)
            written = replace(written, findings=(*prepared.findings, *written.findings))
            write_report(staged, folder, prepared.clip, written)
            done = folder.finish(staged, written.facts)
    return LayersResult(
        done.path,
        done.path / "index.html",
        done.kind,
        done.names,
        done.num_frames,
        written.findings,
        tuple(done.facts["notes"]),
        round(time.perf_counter() - started, 2),
    )
