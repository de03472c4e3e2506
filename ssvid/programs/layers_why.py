"""``layers why``: why layers come out, on scenes whose layers are known: what is learned first, whose shadow goes where, what each part is for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssvid import stopping
from ssvid.bounds import check
from ssvid.errors import RecipeError, did_you_mean
from ssvid.files import takes_paths, write_json, write_text
from ssvid.programs.layers_why_claims import Claim, claims_of
from ssvid.programs.layers_why_fits import PARTS, Record, WhyFit, WhyFolder, WhySettings, fits_of
from ssvid.programs.layers_why_page import render_why_page
from ssvid.progress import Say, every_tenth, speaker
from ssvid.video.optical_flow import require_opencv

PAGE, RESULTS = "why.html", "results.json"


@dataclass(frozen=True)
class WhyResult:
    """What was found. claims: what the lecture or the papers say, beside what is found here. seconds: of this command."""

    folder: Path
    page: Path
    parts: tuple[str, ...]
    claims: Sequence[Claim]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "folder": str(self.folder),
            "page": str(self.page),
            "parts": list(self.parts),
            "claims": [asdict(claim) for claim in self.claims],
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        told = [f"{claim.says}: {claim.here}; {claim.verdict}" for claim in self.claims]
        return "\n".join([*told, f"page: {self.page}"])


@takes_paths("out")
def explain_layers(
    out: str | Path,
    *,
    only: Sequence[str] = (),
    seed: int = 0,
    iterations: int = 0,
    show_progress: bool = True,
) -> WhyResult:
    """Why layers come out: fits to rendered scenes whose layers are known, as a page with curves.

    Three cases of an Omnimatte (Lu et al., CVPR 2021): effects that move as the object does are learned before those that do not, near ones
    before far ones, and two people each take their own shadow. And its ablation, and that of atlases (Kasten et al., SIGGRAPH Asia 2021).

    Args:
        out: a new folder, or one that was begun: each fit that has ended is kept there and not done again. The page shows every part whose
            fits are there. only: names of ``PARTS``; all where it is empty. seed: of scenes and fits. iterations: of every fit, for a try; 0 is
            as many as are usual.

    Raises:
        RecipeError: there is no such part. DataError: the folder is of another seed or number of steps, or holds something else.
        Stopped: asked to end by a signal; KeyboardInterrupt: by Ctrl-C. Both say how to go on.
    """
    started, say = time.perf_counter(), speaker(show_progress)
    for part in only:
        if part not in PARTS:
            raise RecipeError(f"only ({part!r}) is no part. {did_you_mean(part, PARTS)}")
    settings = WhySettings(seed, iterations)
    check(settings)
    require_opencv()
    folder = WhyFolder.open(Path(out), settings)
    with _telling_how_to_go_on():
        _fit_missing(folder, fits_of(only or list(PARTS)), say)
    return _write(folder, started)


@contextlib.contextmanager
def _telling_how_to_go_on() -> Iterator[None]:
    try:
        with stopping.heeding_signals():
            yield
    except (KeyboardInterrupt, stopping.Stopped) as error:
        raise type(error)(f"{error} Go on with the same command; fits that have ended are kept.".lstrip()) from None


def _fit_missing(folder: WhyFolder, fits: Sequence[WhyFit], say: Say) -> None:
    missing = [fit for fit in fits if folder.record(fit) is None]
    if len(missing) < len(fits):
        say(f"{len(fits) - len(missing)} of {len(fits)} fits are there")
    for number, fit in enumerate(missing, start=1):
        say(f"fit {number}/{len(missing)}: {fit.scene}, {fit.name}")
        folder.keep(fit, *fit.measure(folder.settings, _watch(fit, folder.settings, say)))


def _watch(fit: WhyFit, settings: WhySettings, say: Say) -> Callable[[int], None]:
    """What looks on at every step: tells how far it is, and ends the fit where that is asked for."""
    told, total = every_tenth(say, "steps"), settings.iterations or fit.iterations

    def watch(step: int) -> None:
        told(step, total)
        if stopping.requested():
            raise stopping.Stopped(f"stopped by {stopping.requested()} in {fit.scene}, {fit.name}.")

    return watch


def _write(folder: WhyFolder, started: float) -> WhyResult:
    """The page and the results, of every part whose fits are all there."""
    found = {fit: folder.record(fit) for fit in fits_of(list(PARTS))}
    records: dict[WhyFit, Record] = {fit: record for fit, record in found.items() if record is not None}
    parts = tuple(part for part, fits in PARTS.items() if all(fit in records for fit in fits))
    records = {fit: records[fit] for fit in fits_of(parts)}
    claims = [claim for claim in claims_of(records) if claim.part in parts]
    results = {
        "settings": asdict(folder.settings),
        "fits": [{"scene": fit.scene, "name": fit.name, **record} for fit, record in records.items()],
        "claims": [asdict(claim) | {"verdict": claim.verdict} for claim in claims],
    }
    write_json(folder.path / RESULTS, results)
    page = folder.path / PAGE
    write_text(page, render_why_page(folder, records, parts, claims))
    return WhyResult(folder.path, page, parts, claims, round(time.perf_counter() - started, 2))
