"""What a fit is worth, for people and for programs: report.md, report.json, films, and a page that plays them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssvid import __version__
from ssvid.files import write_json, write_text
from ssvid.layers.clip import LayerClip
from ssvid.layers.detectors import Finding
from ssvid.programs.layers_films import on_checks, write_films
from ssvid.programs.layers_folder import REPORT, SHEET, LayersFolder
from ssvid.programs.layers_results import Written
from ssvid.programs.speed_page import picture_uri
from ssvid.templates import render

FILMS = "films"
_KINDS = {
    "omnimatte": "objects with their effects, and what lies behind them",
    "atlas": "pictures that all frames are looked up in; an edit of one sticks to all frames",
}


@dataclass(frozen=True)
class PageFilm:
    """A film of the page. uri: beside it. poster: a picture as an address."""

    name: str
    uri: str
    poster: str
    about: str


def write_report(staged: Path, folder: LayersFolder, clip: LayerClip, written: Written) -> None:
    """Films, report and page, into the folder where layers were written already."""
    films = {"video": clip.frames_THWC}
    films |= {layer.name: on_checks(layer) for layer in reversed(written.layers)}
    films |= {"background": written.background_THWC, "recomposed": written.recomposed_THWC}
    posters = write_films(staged / FILMS, films, folder.fps)
    figures = [asdict(one) | {"value": one.value if np.isfinite(one.value) else None} for one in written.findings]
    facts = facts_of(folder)
    write_json(staged / REPORT, {"facts": dict(facts), "figures": figures, "notes": list(folder.facts["notes"])})
    write_text(staged / "report.md", report_text(folder, facts, written.findings))
    write_text(staged / "index.html", _page(folder, facts, written, posters))


def facts_of(folder: LayersFolder) -> list[tuple[str, str]]:
    """How it was made."""
    known, settings = folder.facts, folder.facts["settings"]
    numbers, (height, width) = known["frames"], folder.size
    return [
        ("video", str(known["video"]["path"])),
        (
            "frames",
            f"{len(numbers)}, {numbers[0]} to {numbers[-1]}, of {width}x{height} px at {folder.fps:.6g} per second",
        ),
        ("kind", f"{folder.kind}: {_KINDS[folder.kind]}"),
        ("objects", ", ".join(folder.names)),
        ("masks", str(known["masks"])),
        ("settings", ", ".join(f"{name} {value}" for name, value in settings.items() if name != "kind")),
        ("versions", ", ".join(f"{name} {value}" for name, value in known["versions"].items())),
    ]


def report_text(folder: LayersFolder, facts: Sequence[tuple[str, str]], findings: Sequence[Finding]) -> str:
    """The report as Markdown."""
    lines = [f"# {folder.kind} of {', '.join(folder.names)}", ""]
    if warnings := [one.warning for one in findings if one.warning]:
        lines += ["## Warnings", "", *(f"* {warning}" for warning in warnings), ""]
    if notes := folder.facts["notes"]:
        lines += ["## Notes", "", *(f"* {note}" for note in notes), ""]
    lines += ["## Figures", "", "| figure | here | without a model |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.text} | {one.beside or '-'} |" for one in findings]
    lines += [
        "",
        "## How it was made",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts),
        "",
    ]
    return "\n".join(lines)


def _page(
    folder: LayersFolder, facts: Sequence[tuple[str, str]], written: Written, posters: Mapping[str, np.ndarray]
) -> str:
    about = {"video": "the video", "background": "what lies behind", "recomposed": "all layers together"}
    films = [
        PageFilm(
            name,
            f"./{FILMS}/{name}.mp4",
            picture_uri(poster),
            about.get(name, "the layer, on gray squares where it is clear"),
        )
        for name, poster in posters.items()
    ]
    files = {
        "preview.mp4": "all of it side by side",
        "report.md": "the figures, as text",
        SHEET: "the masks that were taken",
        **written.pictures,
        **{f"layers/{name}/": f"{name} in each frame, PNG with alpha" for name in folder.names},
        "background/": "what lies behind in each frame",
    }
    values = {
        "about": f"{folder.num_frames} frames taken apart: {_KINDS[folder.kind]}.",
        "warnings": [one.warning for one in written.findings if one.warning],
        "notes": folder.facts["notes"],
        "films": films,
        "figures": written.findings,
        "files": list(files.items()),
        "facts": facts,
        "seconds": folder.num_frames / folder.fps,
    }
    title = f"Layers of {Path(folder.facts['video']['path']).name}"
    return render("layers.html", page=values, title=title, version=__version__)
