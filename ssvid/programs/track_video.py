"""``track --video``: masks and points followed through one's own footage: a film, masks, a table, and a page that plays them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ssvid.errors import DataError, RecipeError
from ssvid.evals.label_propagation.following import Follower, with_trained_stage
from ssvid.evals.label_propagation.page import render_track_page
from ssvid.evals.label_propagation.saving import write_tracks
from ssvid.exports import load_backbone
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.files import folder_beside, takes_paths, write_text
from ssvid.programs.footage import Footage, open_footage
from ssvid.programs.tracked import About, Outputs, counted, draw_films, page_of
from ssvid.progress import every_tenth, speaker
from ssvid.ranks import resolve_device

DEFAULT_PROTOCOL = "track@1"


@dataclass(frozen=True)
class TrackedVideo:
    """What was written, and how it went. jaccard: object -> mean J over the frames with a truth; {} where none is known."""

    outputs: Outputs
    num_frames: int
    num_objects: int
    num_points: int
    jaccard: dict[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "outputs": {name: str(path) for name, path in self.outputs.paths.items()},
            "num_frames": self.num_frames,
            "num_objects": self.num_objects,
            "num_points": self.num_points,
            "jaccard": {str(number): value for number, value in self.jaccard.items()},
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        what = counted(self.num_objects, self.num_points)
        lines = [f"{what} followed through {self.num_frames} frames in {self.seconds:.0f} s"]
        lines += [f"object {number}: mean J {100 * value:.1f} %" for number, value in self.jaccard.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *(f"{name.replace('_', ' ')}: {path}" for name, path in self.outputs.paths.items())])


@takes_paths("backbone", "out")
def track_video(
    footage: Footage,
    *,
    backbone: str | Path,
    out: str | Path,
    protocol: str | PropagationProtocol = DEFAULT_PROTOCOL,
    backbone_name: str | None = None,
    partial: bool = False,
    device: str = "auto",
    show_progress: bool = True,
) -> TrackedVideo:
    """Follow objects and points through a video by the features of a frozen network.

    Written are a film with all drawn on it (``out``), and beside it, named after it, the masks as palette PNGs, the tracks as
    CSV and a page that plays the film; all of them at the end, or none. Frames are streamed: a long video takes no more
    memory than a short one.

    Args:
        footage: the video, and the masks and points of some of its frames.
        backbone: checkpoint, run folder, export, or ``random`` (then ``backbone_name`` names the network).
        out: the film, .mp4. Nothing is overwritten.
        protocol: how labels are carried on: a named protocol, or values of one's own (``protocol_values`` changes some of a
            named one).
        partial: accept weights that fill a part only. device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        SsvidError: any mistake in the video, masks, points, weights or settings; nothing is written then.
    """
    started = time.perf_counter()
    outputs = _outputs(out, footage)
    named = isinstance(protocol, str)
    values = protocol_values(protocol) if isinstance(protocol, str) else protocol
    device = resolve_device(device)
    opened = open_footage(footage)
    network = load_backbone(backbone, name=backbone_name, partial=partial)
    follower = Follower.of(network, with_trained_stage(values, network), device)
    about = About(opened, follower, str(backbone), str(protocol) if named else "")
    with _staged(outputs) as staged:
        seen = draw_films(opened, follower, staged, every_tenth(speaker(show_progress), "frames"))
        if seen.tracks is not None and staged.tracks is not None:
            write_tracks(staged.tracks, opened.seconds().tolist(), *seen.tracks)
        write_text(staged.page, render_track_page(page_of(about, seen, staged)))
    counts = (opened.row.num_frames, len(opened.ids), len(opened.points_Q3))
    seconds = round(time.perf_counter() - started, 2)
    return TrackedVideo(outputs, *counts, seen.mean_jaccard, about.notes, seconds)


def protocol_values(name: str = DEFAULT_PROTOCOL, settings: Sequence[str] = ()) -> PropagationProtocol:
    """The values of a named protocol, or of a recipe of kind ``track``, changed by ``track.key=value``.

    Raises:
        RecipeError: no such protocol, one of another kind, or settings that are wrong.
    """
    from ssvid.protocols.named import named_protocol
    from ssvid.recipe.load import load_recipe

    foreign = next((text for text in settings if not text.startswith("track.")), "")
    if foreign:
        raise RecipeError(
            f"{foreign!r} says nothing about how labels are carried on, and one's own footage takes only the settings of "
            "track. Write track.key=value, for example track.top_k=5."
        )
    if "@" in name:
        named_protocol(name)  # which tells what is near
    loaded = load_recipe(name, settings, kind="track", allow_missing=True)
    return cast(PropagationProtocol, cast(Any, loaded.recipe).track)


# ---- what is written


def _outputs(out: str | Path, footage: Footage) -> Outputs:
    """The names of all that is written, made of that of the film.

    Raises:
        RecipeError: the film is to be no .mp4. DataError: one of them exists.
    """
    film = Path(out)
    if film.suffix.lower() != ".mp4":
        raise RecipeError(f"--out ({out}) must end in .mp4: the film is H.264 in MP4. Set --out {film.stem}.mp4.")
    outputs = Outputs(
        film,
        film.with_suffix(".html"),
        film.with_name(f"{film.stem}_masks") if footage.masks else None,
        film.with_suffix(".csv") if footage.points else None,
        film.with_name(f"{film.stem}_beside_truth.mp4") if footage.truth is not None else None,
    )
    _check_free(outputs)
    return outputs


def _check_free(outputs: Outputs) -> None:
    if there := next((path for path in outputs.paths.values() if os.path.lexists(path)), None):
        raise DataError(f"{there} exists, and nothing is overwritten. Name another --out, or move it away.")


@contextlib.contextmanager
def _staged(outputs: Outputs) -> Iterator[Outputs]:
    """A hidden folder beside, in which all is written: what is whole appears together at the end, or nothing does."""
    with folder_beside(outputs.film) as folder:
        yield outputs.within(folder)
        _check_free(outputs)  # somebody else may have been quicker
        for path in outputs.paths.values():
            os.rename(folder / path.name, path)
