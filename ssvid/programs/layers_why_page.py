"""The page of ``layers why``: what is said and what is found, curves, tables, pictures. It runs no script and loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ssvid import __version__
from ssvid.evals.label_propagation.page import Still, still
from ssvid.layers.atlas import known as atlas
from ssvid.layers.omnimatte.known import EFFECTS
from ssvid.machine import versions
from ssvid.programs.layers_why_claims import FIGURES, OTHER, OWN, TRUTH, Claim, Records, told_step
from ssvid.programs.layers_why_fits import ORDER_BLIND, PARTS, SHADOWS, WhyFit, WhyFolder
from ssvid.results.curves import Panel, describe, draw_panel
from ssvid.templates import render

_TITLES: Final = {
    "effects": "What is learned first",
    "shadows": "Whose shadow goes where",
    "omnimatte": "What each part of an Omnimatte is for",
    "atlas": "What each loss of an atlas is for",
}
_SCENES: Final = {"followers": "three ellipses", "walkers": "two objects", "layered": "atlas"}
_ABOUT: Final = {
    "effects": "One object and three dark ellipses of one size and strength: near and far move as the object does, own moves by itself. Only the "
    "object has a mask. The network is small and sees the mask: what follows from its input it learns first, a prior that no data gave it.",
    "shadows": "Two objects cross the picture in opposite directions, each with a shadow that no mask covers. Alpha of each layer where a shadow "
    "is, over the steps of the fit.",
    "omnimatte": "The scene of two objects, fitted with one part left out at a time, and at the end that of the three ellipses with the mask as the "
    "only input. Each part is judged by one figure, that of the worse of the two objects: it shows where an alpha or an IoU is worse by 0.1, a "
    "PSNR by 3 dB. What does not show can be changed without harm on this scene.",
    "atlas": "A textured body crosses the picture, turns and grows before a ground that pans; the structure of the paper, made smaller, fitted with "
    "one thing left out at a time. PSNR tells how frames are shown; tracks tell whether a place of the atlas is one place of object or background, as "
    "an edit needs. The texture is fine on purpose, and the body goes farther from frame to frame than its colors are alike: else colors "
    "alone pull the mapping into place, and neither flow nor the kind of the atlas is seen in the tracks.",
}
_HEADS: Final = {
    "clean background, dB": "clean background, dB",
    "removal within the region, dB": "removal of an object, dB",
    "IoU with object and shadow": "IoU with object and shadow",
    OWN: OWN,
    OTHER: OTHER,
    "alpha where nothing of it is": "alpha where nothing of it is",
}
_ATLAS_HEADS: Final = {"psnr": "PSNR, dB", "psnr_object": "on the object, dB", **FIGURES, "alpha_iou": "IoU of alpha"}


@dataclass(frozen=True)
class Table:
    """Figures. rows: name -> a cell for each name of ``head``."""

    caption: str
    head: Sequence[str]
    rows: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One part on the page. strips: (what is fitted, picture)."""

    name: str
    title: str
    about: str
    claims: Sequence[Claim]
    panels: Sequence[Panel]
    table: Table
    strips: Sequence[tuple[str, Still]]

    @property
    def purposes(self) -> list[Claim]:
        """What its parts are for."""
        return [claim for claim in self.claims if claim.source == "purpose"]

    @property
    def sentence(self) -> str:
        """How many of them show."""
        shown = sum(claim.agrees for claim in self.purposes)
        return f"{shown} of {len(self.purposes)} show here." if self.purposes else ""


def render_why_page(folder: WhyFolder, records: Records, parts: Sequence[str], claims: Sequence[Claim]) -> str:
    """The page as HTML. records: of all fits of ``parts``."""
    sections = [_section(part, folder, records, [one for one in claims if one.part == part]) for part in parts]
    settings = folder.settings
    values: dict[str, Any] = {
        "about": "An Omnimatte and atlases learn from one video alone. Here they are fitted to rendered scenes, of which the truth is known, to "
        "see what they learn first and what each part of them is for. One seed: what is close may turn out otherwise with another.",
        "notes": [
            f"Every fit had {settings.iterations} steps only, for a try: the figures say nothing about the models."
        ]
        if settings.iterations
        else [],
        "said": [one for one in claims if one.source == "lecture"],
        "sections": sections,
        "missing": [_TITLES[part] for part in PARTS if part not in parts],
        "facts": [
            ("seed", str(settings.seed)),
            ("steps", _told_steps(settings.iterations)),
            ("CPU seconds of all fits", f"{sum(record['cpu_seconds'] for record in records.values()):.0f}"),
            ("versions", ", ".join(f"{name} {value}" for name, value in versions().items())),
        ],
    }
    return render(
        "layers_why.html",
        page=values,
        title="Why layers come out",
        version=__version__,
        draw_panel=draw_panel,
        describe=describe,
    )


def _told_steps(iterations: int) -> str:
    usual = {fit.scene: fit.iterations for fits in PARTS.values() for fit in fits}
    return ", ".join(f"{_SCENES[scene]} {iterations or count}" for scene, count in usual.items())


def _section(part: str, folder: WhyFolder, records: Records, claims: Sequence[Claim]) -> Section:
    own = {fit: records[fit] for fit in PARTS[part]}
    panels, table = {"effects": _effects, "shadows": _shadows, "omnimatte": _omnimatte, "atlas": _atlas}[part](own)
    strips = [(f"{_SCENES[fit.scene]}, {fit.name}", still(folder.picture(fit), _TITLES[part])) for fit in own]
    return Section(part, _TITLES[part], _ABOUT[part], claims, panels, table, strips)


Contents = tuple[list[Panel], Table]


def _panel(title: str, record: Mapping[str, Any], lines: Mapping[str, Sequence[float]], **levels: float) -> Panel:
    points = {
        name: [(float(s), v) for s, v in zip(record["steps"], values, strict=True)] for name, values in lines.items()
    }
    return Panel(title, points, levels, along="steps of the fit")


def _effects(records: Records) -> Contents:
    rows = {fit.name: [told_step(one["halves"][name]) for name in EFFECTS] for fit, one in records.items()}
    return [_order_panel("share of an effect that is reconstructed", one) for one in records.values()], Table(
        "When half of an effect is reconstructed", EFFECTS, rows
    )


def _order_panel(title: str, record: Mapping[str, Any]) -> Panel:
    return _panel(title, record, record["shares"], half=0.5)


def _shadows(records: Records) -> Contents:
    (record,) = records.values()
    rows = _baselines(record["figures"]) | {"complete": _cells(record["figures"], _HEADS)}
    table = Table("Two objects: the worse one, at the end", list(_HEADS.values()), rows)
    return [_shadow_panel("alpha in own and other's shadow", record)], table


def _shadow_panel(title: str, record: Mapping[str, Any]) -> Panel:
    lines = {f"{name}, own": values for name, values in record["own"].items()}
    lines |= {f"{name}, other's": values for name, values in record["other"].items()}
    return _panel(title, record, lines, truth=record["figures"][TRUTH])


def _baselines(figures: Mapping[str, float]) -> dict[str, list[str]]:
    """What takes no model."""
    untouched = {"removal within the region, dB": figures["video untouched, dB"]}
    masked = {
        "removal within the region, dB": figures["mask alone replaced by the truth, dB"],
        "IoU with object and shadow": figures["IoU of the mask alone"],
        OWN: 0.0,
        OTHER: 0.0,
    }
    truth = {OWN: figures[TRUTH], OTHER: 0.0, "alpha where nothing of it is": 0.0}
    return {
        "video untouched": _cells(untouched, _HEADS),
        "mask alone, truth in its place": _cells(masked, _HEADS),
        "truth": _cells(truth, _HEADS),
    }


def _cells(figures: Mapping[str, float | None], heads: Mapping[str, str]) -> list[str]:
    values = [figures.get(name) for name in heads]
    return ["-" if value is None else f"{value:.3g}" for value in values]


def _omnimatte(records: Records) -> Contents:
    lines = {fit: one for fit, one in records.items() if fit.scene == SHADOWS.scene}
    rows = _baselines(lines[SHADOWS]["figures"]) | {
        fit.name: _cells(one["figures"], _HEADS) for fit, one in lines.items()
    }
    panels = [_shadow_panel(f"{fit.name}: alpha in shadows", one) for fit, one in lines.items()]
    panels.append(_order_panel(f"ellipses, {ORDER_BLIND.name}: share reconstructed", records[ORDER_BLIND]))
    return panels, Table("Two objects: the worse one, at the end", list(_HEADS.values()), rows)


def _atlas(records: Records) -> Contents:
    complete = records[WhyFit("layered", "complete")]
    heads = ["PSNR in the lecture, dB", *_ATLAS_HEADS.values()]
    said = {name: f"{value:.2f}" for name, value in atlas.LECTURE_PSNR.items()}
    rows = {fit.name: [said.get(fit.name, "-"), *_cells(one["figures"], _ATLAS_HEADS)] for fit, one in records.items()}
    panels = []
    for fit, one in records.items():
        if one is not complete:
            for key, title in (("psnr", "PSNR, dB"), ("track_px", "error of tracks, px, of the worse layer")):
                lines = {"complete": complete[key], fit.name: one[key]}
                panels.append(_panel(f"{fit.name}: {title}", one, lines))
    return panels, Table("At the end", heads, rows)
