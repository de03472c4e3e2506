"""``--from``: run again what a result recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone
from ssvid.data.manifest import Manifest
from ssvid.errors import DataError, RecipeError
from ssvid.machine import arithmetic_note
from ssvid.programs.runs import Run, listed
from ssvid.results.rows import ResultRow, read_results
from ssvid.results.summaries import fold_of, seed_of
from ssvid.settings import as_today
from ssvid.weights.checkpoints import weights_sha256

_PLACES = ("data.root", "data.list", "data.annotations")


@dataclass(frozen=True)
class Recorded:
    """A ``results.json`` that is to be repeated: its recipe, the program's arguments, and the hashes it was made from."""

    path: Path
    kind: str
    recipe: Mapping[str, Any]
    arguments: Mapping[str, Any]
    rows: tuple[ResultRow, ...]

    @classmethod
    def read(cls, path: str | Path, kind: str) -> Recorded:
        """The file, for the program of this kind.

        Raises:
            DataError: it is no such file, of another kind, or a number in it lacks a hash of its data or weights.
        """
        rows = read_results(path)
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        if "recipe" not in plain or "arguments" not in plain:
            raise DataError(f"{path} does not hold the recipe that made it. Evaluate again: ssvid {kind} RECIPE.")
        if plain.get("kind") != kind:
            raise DataError(
                f"{path} is of kind {plain.get('kind')!r}. Repeat it with: ssvid {plain.get('kind')} --from {path}"
            )
        for row in rows:
            for key in ("manifest_sha256", "weights_sha256"):
                if not row.context.get(key):
                    raise DataError(
                        f"{path}: the number {row.metric} of {row.name} has no {key}, so that nobody can tell whether it "
                        "would be repeated. Evaluate again."
                    )
        return cls(Path(path), kind, as_today(plain["recipe"]), plain["arguments"], tuple(rows))

    def repeated(
        self, recipe: Any, overrides: Sequence[str], arguments: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
        """Recipe, overrides and arguments of the program that repeats it.

        The call may say where the videos (``data.root``, ``data.list``, ``data.annotations``) and the weights are now, and
        nothing else: another setting would be another number.

        Raises:
            RecipeError: a recipe is given too, or another setting.
        """
        words = [*([recipe] if recipe is not None else []), *overrides]
        other = [word for word in words if str(word).partition("=")[0] not in _PLACES]
        if other:
            raise RecipeError(
                f"--from {self.path} repeats a result as it was made; {other[0]!r} would make it another one. Leave it out "
                f"({', '.join(_PLACES)} may say where the videos are now), or evaluate anew with a recipe."
            )
        moved = {key: value for key in ("backbone", "placebo") if (value := listed(arguments[key]))}
        return dict(self.recipe), words, {**self.arguments, **moved}

    def check_data(self, manifest: Manifest, run: Run) -> None:
        """Raise DataError unless the videos are those that the result was measured on."""
        wanted = {r.context["manifest_sha256"] for r in self.rows if (fold_of(r), seed_of(r)) == (run.fold, run.seed)}
        found = manifest.sha256()
        if wanted != {found}:
            raise DataError(
                f"{self.path} was measured on videos whose table has the hash {_short(wanted)}, and {manifest.root} has "
                f"{found[:16]}: files were added, removed, changed or relabeled. Set data.root to the videos it was "
                "measured on."
            )

    def check_weights(self, networks: Mapping[str, Backbone], run: Run) -> None:
        """Raise DataError unless the weights are those that the result was measured with."""
        for name, network in networks.items():
            wanted = {
                r.context["weights_sha256"]
                for r in self.rows
                if (r.name, fold_of(r), seed_of(r)) == (name, run.fold, run.seed)
            }
            found = weights_sha256(network.state_dict())
            if wanted != {found}:
                raise DataError(
                    f"{self.path} was measured with {name} weights of the hash {_short(wanted)}, and {run.backbone} has "
                    f"{found[:16]}. Name the weights it was measured with: --backbone PATH."
                )

    def compare(self, rows: Sequence[ResultRow]) -> str:
        """Whether every number came out the same, in words."""
        key: Callable[[ResultRow], tuple[Any, ...]] = lambda r: (r.name, r.metric, fold_of(r), seed_of(r))  # noqa: E731
        old = {key(row): row for row in self.rows}
        new = {key(row): row for row in rows}
        differ = [
            f"{name} {metric}: {old[k].value!r} -> {new[k].value!r}"
            if k in new
            else f"{name} {metric}: not measured again"
            for k in old
            for name, metric in [k[:2]]
            if k not in new or old[k].value != new[k].value or (old[k].correct_N != new[k].correct_N).any()
        ]
        told = [f"NOT repeated: {len(differ)} of {len(old)} numbers of {self.path} differ:", *differ]
        if not differ:
            told = [f"repeated: all {len(old)} numbers of {self.path} to the last digit, video by video"]
        notes = {arithmetic_note(row.context.get("versions", {})) for row in self.rows} - {""}
        return "\n".join([*told, *(f"note: {note}" for note in sorted(notes))])


def _short(hashes: set[str]) -> str:
    return " or ".join(sorted(h[:16] for h in hashes)) or "(none)"
