"""What all evaluations share: folds and seeds in one command, the named protocol beside each number, and repeating a
number from its ``results.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ssvid.backbones import Backbone
from ssvid.checkpoints import weights_sha256
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.evals import ResultRow, render_table, write_results
from ssvid.evals.confusion import confusion_picture, per_class
from ssvid.evals.features import Subject, extract_together
from ssvid.evals.named_protocols import NamedProtocol, Published, named_protocol
from ssvid.evals.report import ANCHORS, PRETRAINED
from ssvid.evals.results import read_results, title_of
from ssvid.evals.summaries import Summary, fold_of, seed_of, summarize, summarize_difference
from ssvid.files import write_atomic
from ssvid.machine import arithmetic_note
from ssvid.recipe.device import is_first_process
from ssvid.recipe.load import LoadedRecipe
from ssvid.recipe.pretraining import RUNS, Say, tenths
from ssvid.recipe.schema import FinetuneRecipe, ProbeRecipe, RetrieveRecipe
from ssvid.settings import without_gone
from ssvid.train.agreement import agreed
from ssvid.train.run_folder import next_beside, next_free

Config = TypeVar("Config", ProbeRecipe, RetrieveRecipe, FinetuneRecipe)
Weights = str | Path
RANDOM = "random"


@dataclass(frozen=True)
class Run:
    """One of the evaluations of a command. fold: official split, 0 where the recipe names none. seed: what it is summarized
    by: that of the recipe, or the place of the backbone in the command where there are several; used_seed is then the
    recipe's.
    """

    fold: int
    seed: int
    backbone: Weights
    placebo: Weights | None
    used_seed: int | None = None

    @property
    def recipe_seed(self) -> int:
        """What the evaluation draws from."""
        return self.seed if self.used_seed is None else self.used_seed

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"fold{self.fold}-seed{self.seed}" if self.fold else f"seed{self.seed}"


def plan_runs(
    config: ProbeRecipe | RetrieveRecipe | FinetuneRecipe,
    backbone: Weights | Sequence[Weights],
    placebo: Weights | Sequence[Weights] | None = None,
) -> list[Run]:
    """Every fold with every seed, or with every backbone where several are named.

    Raises:
        RecipeError: several backbones and several seeds, or not a placebo for each backbone.
    """
    backbones, placebos = _listed(backbone), _listed(placebo) or [None]
    if len(backbones) > 1 and len(config.seeds) > 1:
        raise RecipeError(
            f"seeds ({config.seeds}) must be left out where several backbones are named ({len(backbones)}): each of them "
            "counts as a seed. Set seeds=[]."
        )
    if len(placebos) == 1:
        placebos = placebos * len(backbones) if placebos[0] in (None, "train") or len(backbones) == 1 else placebos
    if len(placebos) != len(backbones):
        raise RecipeError(
            f"there must be one placebo for each backbone, and there are {len(placebos)} for {len(backbones)}. Name each "
            "with --placebo, in the same order, or say --placebo train."
        )
    seeds = config.seeds or [config.seed]
    if len(backbones) > 1:
        seeded = [(i, seeds[0], b, p) for i, (b, p) in enumerate(zip(backbones, placebos, strict=True))]
    else:
        seeded = [(seed, seed, backbones[0], placebos[0]) for seed in seeds]
    folds = config.folds or [config.data.fold if config.data.name in OFFICIAL else 0]
    return [Run(fold, place, b, p, seed) for fold in folds for place, seed, b, p in seeded]


def refuse_repetition(
    config: ProbeRecipe | RetrieveRecipe | FinetuneRecipe, backbone: Weights | Sequence[Weights]
) -> None:
    """Raise RecipeError where one evaluation would be done several times: its spread would be 0.0 and mean nothing."""
    backbones = _listed(backbone)
    if config.kind != "finetune" and len(config.seeds) > 1 and str(backbones[0]) != RANDOM:
        raise RecipeError(
            f"seeds ({config.seeds}) have no effect on the frozen features of {backbones[0]}: every number would be the same. "
            "Set seeds=[], and name the checkpoints of several pretrainings with --backbone again and again."
        )
    if len(config.folds) > 1 and config.data.name not in OFFICIAL:
        raise RecipeError(
            f"folds ({config.folds}) are official splits of {' and '.join(OFFICIAL)}, and data.name={config.data.name} has one "
            "split: every number would be the same. Set folds=[]."
        )
    named: dict[str, list[Any]] = {
        "seeds": config.seeds,
        "folds": config.folds,
        "--backbone": [str(one) for one in backbones],
    }
    for name, values in named.items():
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise RecipeError(f"{name} names {twice[0]} twice: its numbers would be the same. Name each once.")


OFFICIAL = ("ucf101", "hmdb51")  # data sets with official splits


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def config_of(config: Config, run: Run) -> Config:
    """The recipe at one fold and seed."""
    data = replace(config.data, fold=run.fold) if run.fold else config.data
    return replace(config, data=data, seed=run.recipe_seed)


def more_overrides(arguments: Mapping[str, Any]) -> list[str]:
    """Overrides of the recipe that options of the command line stand for."""
    name = arguments["backbone_name"]
    return [f"backbone.name={name}"] * bool(name) + ["features.untrained_stage=true"] * bool(
        arguments.get("untrained_stage")
    )


def evaluation_folder(kind: str, out: Weights | None, backbone: Weights, loaded: LoadedRecipe) -> Path:
    """Where results go: ``out``, or a new folder beside the run that the backbone belongs to."""
    if out is not None:
        return Path(out)
    stem = loaded.path.stem if loaded.path else loaded.protocol.partition("@")[0]
    name = f"{kind}-{stem}" if stem else kind

    def choose() -> str:
        is_random = str(backbone) == RANDOM
        return str(next_free(RUNS, name) if is_random else next_beside(backbone, name, otherwise=RUNS))

    return Path(agreed("out", choose))


def taken_from(
    results: Weights | None,
    kind: str,
    recipe: Any,
    overrides: Sequence[str],
    arguments: dict[str, Any],
) -> tuple[Any, tuple[str, ...], dict[str, Any], Recorded | None]:
    """Recipe, overrides and arguments of a program: those of its call, or those of the result that it repeats.

    With ``results``, the call may say where the videos (``data.root``, ``data.list``, ``data.annotations``) and the
    weights are now, and nothing else: another setting would be another number.

    Raises:
        RecipeError: neither or both of a recipe and a result are given, no backbone, or another setting.
        DataError: ``results`` cannot be repeated.
    """
    if results is None:
        if recipe is None:
            raise RecipeError(f"ssvid {kind} needs a recipe, or --from RESULTS to repeat a result. See: ssvid recipes")
        if not _listed(arguments["backbone"]):
            raise RecipeError(f"ssvid {kind} needs the weights to score. Add --backbone PATH, or --backbone random.")
        return recipe, tuple(overrides), arguments, None
    recorded = Recorded.read(results, kind)
    words = [*([recipe] if recipe is not None else []), *overrides]
    other = [word for word in words if str(word).partition("=")[0] not in _PLACES]
    if other:
        raise RecipeError(
            f"--from {results} repeats a result as it was made; {other[0]!r} would make it another one. Leave it out "
            f"({', '.join(_PLACES)} may say where the videos are now), or evaluate anew with a recipe."
        )
    moved = {key: value for key in ("backbone", "placebo") if (value := _listed(arguments[key]))}
    return dict(recorded.recipe), tuple(words), {**recorded.arguments, **moved}, recorded


_PLACES = ("data.root", "data.list", "data.annotations")


# ---- one reading


def read_once(
    subjects: Sequence[Subject],
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    *,
    device: str,
    cache_dir: Path,
    say: Say,
) -> None:
    """Take the features of all that an evaluation is about from one reading of the videos."""
    say(
        f"features of {len(subjects)} networks and anchors from one reading of {len(train_rows) + len(test_rows)} videos"
    )
    for side, rows in (("train", train_rows), ("test", test_rows)):
        told = tenths(say, f"{side} videos")
        extract_together(subjects, manifest, rows, device=device, cache_dir=cache_dir, progress=told)


# ---- the outcome


@dataclass
class Evaluation:
    """The rows of an evaluation, their summaries over folds and seeds, and where they were written. Prints as the table.

    pictures: files beside the results. repeated: what came of the comparison where an older result was repeated.
    """

    rows: list[ResultRow]
    path: Path
    summaries: list[Summary] = field(default_factory=list)
    protocol: NamedProtocol | None = None
    pictures: list[Path] = field(default_factory=list)
    repeated: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain types: the numbers and the files that hold everything else."""
        rows = [
            {
                "name": r.name,
                "metric": r.metric,
                "fold": fold_of(r),
                "seed": seed_of(r),
                "value": r.value,
                "interval95": list(r.interval),
                "chance": r.chance,
            }
            for r in self.rows
        ]
        return {
            "rows": rows,
            "summaries": [summary.as_dict() for summary in self.summaries],
            "differences": [difference.as_dict() for difference in differences(self.rows)],
            "results": str(self.path),
            "pictures": [str(path) for path in self.pictures],
            "repeated": self.repeated,
        }

    def __str__(self) -> str:
        parts = [render_table(summary_rows(self.rows, self.summaries) or self.rows)]
        parts += [_spread_lines(self.summaries)] if self.summaries else []
        parts += [_difference_lines(differences(self.rows))]
        if self.protocol is not None and self.protocol.published:
            parts.append(published_lines(self.protocol.published, {row.metric for row in self.rows}))
        files = "\n".join([f"full results: {self.path}", *(f"picture: {p}" for p in self.pictures)])
        return "\n\n".join(part for part in (*parts, files, self.repeated) if part)


def summary_rows(rows: Sequence[ResultRow], summaries: Sequence[Summary]) -> list[ResultRow]:
    """The summaries as rows of a table, with the notes of the rows they come from."""
    found = []
    for summary in summaries:
        mine = [row for row in rows if (row.name, row.metric) == (summary.name, summary.metric)]
        notes = list(dict.fromkeys(note for row in mine for note in row.context.get("notes", ())))
        ids = tuple(dict.fromkeys(video for row in mine for video in row.ids))
        context = {**mine[0].context, "notes": notes}
        found.append(
            replace(
                mine[0], value=summary.value, interval=summary.interval, chance=summary.chance, ids=ids, context=context
            )
        )
    return found


def _spread_lines(summaries: Sequence[Summary]) -> str:
    """What each summary is a mean of, and how far it spreads."""
    lines = []
    for s in summaries:
        deviations = {"folds": s.over_folds, "seeds": s.over_seeds}
        spread = [f"over {what} {100 * value:.1f}" for what, value in deviations.items() if value is not None]
        each = "; ".join(
            f"fold {fold}: " * bool(fold) + ", ".join(f"{100 * v:.1f}" for v in seeds.values())
            for fold, seeds in s.values.items()
        )
        lines.append(f"{s.name}, {title_of(s.metric)}: standard deviation {', '.join(spread)} ({each})")
    return "\n".join(lines)


def differences(rows: Sequence[ResultRow]) -> list[Summary]:
    """The pretrained network minus its placebo and minus the random one, in every metric that both have, paired."""
    found = []
    for anchor in ANCHORS:
        theirs = {row.metric for row in rows if row.name == anchor}
        for metric in dict.fromkeys(row.metric for row in rows if row.name == PRETRAINED):
            if metric in theirs:
                found.append(summarize_difference(rows, PRETRAINED, anchor, metric))
    return found


def _difference_lines(found: Sequence[Summary]) -> str:
    """One line for each network that the pretrained one is compared with."""
    if not found:
        return ""
    lines = ["paired over the test videos, in points, with 95 % intervals:"]
    for name in dict.fromkeys(d.name for d in found):
        told = (
            f"{title_of(d.metric)} {100 * d.value:+.1f} [{100 * d.interval[0]:+.1f}, {100 * d.interval[1]:+.1f}]"
            for d in found
            if d.name == name
        )
        lines.append(f"  {name}: {'; '.join(told)}")
    return "\n".join(lines)


def published_lines(published: Sequence[Published], metrics: set[str]) -> str:
    """Numbers of others, told apart from those measured here."""
    lines = ["published under this protocol; not measured here:"]
    for p in published:
        values = ", ".join(f"{title_of(metric)} {value:g}" for metric, value in p.values.items() if metric in metrics)
        lines += [f"  {p.method}, {p.backbone}, pretrained on {p.pretraining}: {values}  [{p.source}]"] * bool(values)
    return "\n".join(lines) if len(lines) > 1 else ""


def conclude(
    folder: Path,
    rows: list[ResultRow],
    loaded: LoadedRecipe,
    arguments: Mapping[str, Any],
    manifest: Manifest,
    *,
    recorded: Recorded | None = None,
    name: str = "results.json",
) -> Evaluation:
    """Write ``results.json`` and the picture of what was taken for what; compare with the result that was repeated. Of
    several processes the first one writes.

    arguments: of the program, by which ``--from`` repeats it.
    """
    # The worse form of the random network is another one from fold to fold: only the better one has a mean.
    summaries = summarize(row for row in rows if not row.name.startswith("random, "))
    extra = {
        "kind": loaded.resolved["kind"],
        "recipe": loaded.resolved,
        "arguments": {key: _as_text(value) for key, value in arguments.items()},
        "summaries": [summary.as_dict() for summary in summaries],
        "per_class": per_class(rows, manifest),
    }
    is_first, pictures = is_first_process(), []
    path = write_results(folder / name, rows, extra=extra) if is_first else folder / name
    picture = confusion_picture(rows, manifest) if is_first else None
    if picture is not None:
        pictures.append(folder / "confusion.png")
        write_atomic(pictures[0], lambda file: picture.save(file, "PNG"))
    protocol = named_protocol(loaded.protocol) if loaded.protocol else None
    repeated = recorded.compare(rows) if recorded is not None else ""
    return Evaluation(rows, path, summaries, protocol, pictures, repeated)


def _as_text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# ---- repeating a number


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
        return cls(Path(path), kind, without_gone(plain["recipe"]), plain["arguments"], tuple(rows))

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
