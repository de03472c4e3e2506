"""What is said of layers, beside what is found: sentences that are made of figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ssvid.layers.atlas import known as atlas
from ssvid.layers.omnimatte import known as omnimatte
from ssvid.programs.layers_why_fits import ORDER, ORDER_BLIND, SHADOWS, Record, WhyFit

Records = Mapping[WhyFit, Record]
FIGURES: Final = {
    "track_worst": "mean error of tracks, of object or background, px",
    "stretch": "stretch of the object's mapping",
    "unseen_energy": "what the object's atlas holds unseen",
}
OWN, OTHER, TRUTH = "alpha in its own shadow", "alpha in the other's shadow", "alpha in its own shadow, truth"


@dataclass(frozen=True)
class Claim:
    """Something that is said. source: ``lecture``, or ``purpose``, what a part of a model is for. here: what is found. agrees: whether it is so here."""

    part: str
    source: str
    says: str
    here: str
    agrees: bool

    @property
    def verdict(self) -> str:
        """In words."""
        if self.source == "lecture":
            return "agrees" if self.agrees else "does not agree"
        return "shows" if self.agrees else "does not show"


def claims_of(records: Records) -> list[Claim]:
    """All that can be said of the fits that are there."""
    return [*_of_effects(records), *_of_shadows(records), *_of_omnimatte(records), *_of_atlas(records)]


def told_step(step: float | None) -> str:
    """When half of an effect was there."""
    return "never" if step is None else f"after {step:.0f} steps"


def _of_effects(records: Records) -> Iterator[Claim]:
    record = records.get(ORDER)
    if record is None:
        return
    halves = record["halves"]
    near, far, own = (math.inf if halves[name] is None else halves[name] for name in omnimatte.EFFECTS)
    told = {name: f"half of {name} {told_step(halves[name])}" for name in omnimatte.EFFECTS}
    yield Claim(
        "effects",
        "lecture",
        "an effect that moves as the object does is learned before one that moves by itself",
        f"{told['near']}, {told['far']}, {told['own']}",
        max(near, far) < own,
    )
    yield Claim(
        "effects",
        "lecture",
        "an effect near the object is learned before one far from it",
        f"{told['near']}, {told['far']}",
        near < far,
    )


def _of_shadows(records: Records) -> Iterator[Claim]:
    record = records.get(SHADOWS)
    if record is None:
        return
    own, other, truth = (record["figures"][name] for name in (OWN, OTHER, TRUTH))
    yield Claim(
        "shadows",
        "lecture",
        "of two people each takes their own shadow",
        f"alpha in the own shadow at least {own:.2f}, in the other's at most {other:.2f}; truly {truth:.2f} and 0",
        own > truth / 2 > other,
    )


def _of_omnimatte(records: Records) -> Iterator[Claim]:
    complete = records.get(SHADOWS)
    for name, (figure, least, purpose) in omnimatte.SHOWS.items():
        record = records.get(WhyFit("walkers", name))
        if record is None or complete is None:
            continue
        with_it, without = complete["figures"][figure], record["figures"][figure]
        worse = without - with_it if figure in omnimatte.LESS_IS_BETTER else with_it - without
        here = f"{figure}: {without:.3g}, complete {with_it:.3g}"
        yield Claim("omnimatte", "purpose", f"{name}: {purpose}", here, worse >= least)
    if ORDER in records and ORDER_BLIND in records:
        with_it, without = (records[fit]["halves"]["own"] for fit in (ORDER, ORDER_BLIND))
        yield Claim(
            "omnimatte",
            "purpose",
            f"{ORDER_BLIND.name}, three ellipses: flow and noise let a layer show what does not follow from its mask",
            f"half of own motion: {told_step(without)}, complete {told_step(with_it)}",
            with_it is not None and (without is None or without > with_it),
        )


def _of_atlas(records: Records) -> Iterator[Claim]:
    complete = records.get(WhyFit("layered", "complete"))
    found = {name: records.get(WhyFit("layered", name)) for name in atlas.SHOWS}
    lines = {name: record["figures"] for name, record in found.items() if record is not None}
    if complete is None:
        return
    whole = complete["figures"]
    for name, figures in lines.items():
        if name in atlas.LECTURE_PSNR:
            said, before = atlas.LECTURE_PSNR[name], atlas.LECTURE_PSNR["complete"]
            here = f"{whole['psnr']:.2f} to {figures['psnr']:.2f} dB"
            yield Claim(
                "atlas",
                "lecture",
                f"{name}: PSNR falls from {before:.2f} to {said:.2f} dB",
                here,
                figures["psnr"] < whole["psnr"],
            )
    for name, figures in lines.items():
        key, times = atlas.SHOWS[name]
        ratio = figures[key] / whole[key] if whole[key] else math.inf
        here = f"{figures[key]:.3g}, complete {whole[key]:.3g}: {ratio:.3g} times"
        yield Claim(
            "atlas", "purpose", f"{name}: {FIGURES[key]}, is at least {times:g} times as large", here, ratio >= times
        )
    if "grid atlas" in lines:
        grid = lines["grid atlas"]["psnr"]
        here = f"{whole['psnr']:.2f} to {grid:.2f} dB"
        yield Claim("atlas", "purpose", "grid atlas: PSNR is higher all the same", here, grid > whole["psnr"])
