"""Several networks that answer together, such as the two streams of pictures and of flow: each a fine-tuning of its own, and
the mean of their class probabilities (Simonyan & Zisserman 2014, arXiv:1406.2199; I3D, Carreira & Zisserman 2017).

    RUN/spatial/...   RUN/temporal/...    a run folder each      RUN/results.json    the rows of all, and those of the mean
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssvid.data.collection import load_manifest
from ssvid.errors import DataError, RecipeError, SsvidError, did_you_mean
from ssvid.evals.contract import LabeledData, Subject, Tools
from ssvid.evals.finetune.scores import SCORES, Scores, averaged, read_scores
from ssvid.evals.measuring import Around, Asked
from ssvid.files import write_json, write_text
from ssvid.machine import environment
from ssvid.programs.evaluate import prepared
from ssvid.programs.finetuning import Finetuning, Trainings
from ssvid.programs.outcome import Outcome, conclude
from ssvid.programs.runs import Run, config_of, listed, runs_of
from ssvid.programs.scored_videos import check_listed
from ssvid.ranks import is_first_process
from ssvid.recipe.building import check_modality
from ssvid.recipe.check import merge
from ssvid.recipe.load import with_idle_at_default
from ssvid.recipe.protocol_notes import protocol_note
from ssvid.recipe.schema import FinetuneRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.results.rows import ResultRow

# What a stream may have of its own; everything else is that of all.
_OWN = {"backbone": (), "data": ("modality", "flow"), "finetune": (), "optim": ()}
_NAME = re.compile(r"[A-Za-z][\w-]*")
_TOPS = {"top1": 1, "top5": 5}  # what is said of videos; views of different streams have nothing to do with one another


class Stream(Finetuning):
    """The fine-tuning of one stream. The command that it belongs to is told of what interrupts it."""

    remembers = False  # its probabilities are needed, and rows do not hold them
    begin: Callable[[], None]  # called once nothing is left to be refused, before its folder is made

    def check(self) -> None:
        """Make sure that its network, its settings and its videos can be used, before another stream is trained for hours.

        Raises:
            SsvidError: they cannot.
        """
        config = config_of(self.config, self.runs[0])
        network = self.network(config, self.runs[0])
        check_modality(config.data, network.info)
        asked, _ = prepared(config, network, Tools(loader=config.loader))
        check_listed(config.data, asked)
        load_manifest(config.data)

    def around(self, run: Run, config: FinetuneRecipe) -> Around:
        return _TrainingsOfStream(self, self.own_folder(run), self.tools(config, run))

    def interrupted(self, error: BaseException) -> str:
        """Nothing: the command says how to go on with all."""
        return str(error)


class _TrainingsOfStream(Trainings):
    command: Stream

    @contextlib.contextmanager
    def begun(self, asked: Asked, subjects: Sequence[Subject], data: LabeledData) -> Iterator[None]:
        """Write down what all streams share, and then what this one depends on."""
        self.command.begin()
        with super().begun(asked, subjects, data):
            yield


class Streams(Finetuning):
    """``finetune`` of any recipe: of the streams that it lists in turn, or of its one network where it lists none."""

    def planned(self) -> list[Run]:
        """The runs of each stream."""
        if not self.config.streams:
            return super().planned()
        _check_streams(self.config.streams)
        if self.arguments["placebo"]:
            raise RecipeError(
                "--placebo is not taken by a recipe with streams. Fine-tune each network by a recipe of its own."
            )
        first = next(iter(_weights(self.arguments["backbone"], self.config.streams).values()))
        return runs_of(self.config, self.arguments | {"backbone": first})

    def evaluate(self, folder: Path) -> Outcome:
        """Train and score every stream, and then all of them together."""
        if not self.config.streams:
            return super().evaluate(folder)
        streams = self._streams()
        rows: dict[str, list[ResultRow]] = {}
        for name, stream in streams.items():
            self.say(f"stream {name}")
            rows[name] = stream.into(folder / name, self.resume).rows
        own = [row for name, of_stream in rows.items() for row in _named(name, of_stream)]
        together = list(self._together(rows, folder)) if is_first_process() else []
        manifest = next(iter(streams.values())).table
        return conclude(folder, [*own, *together], self.loaded, self.arguments, manifest, recorded=self.recorded)

    def _streams(self) -> dict[str, Stream]:
        """The fine-tuning of each stream, with its recipe, weights and, where a result is repeated, its part of that."""
        shared = {key: value for key, value in self.loaded.resolved.items() if key != "streams"}
        found = {}
        for name, weights in _weights(self.arguments["backbone"], self.config.streams).items():
            own = self.config.streams[name]
            recipe = with_idle_at_default(merge(shared, own), FinetuneRecipe, but=own)
            arguments = self.arguments | {"backbone": weights}
            more: dict[str, Any] = {"nested": {}, "from_results": None, "show_progress": self.show_progress}
            try:
                stream = Stream("finetune", recipe, (), arguments, **more)
                stream.check()
            except SsvidError as error:
                raise (DataError if isinstance(error, DataError) else RecipeError)(f"stream {name}: {error}") from error
            if self.recorded is not None:
                of_stream = (row for row in self.recorded.rows if row.context.get("stream") == name)
                named = tuple(replace(row, name=row.context["stream_row"]) for row in of_stream)
                stream.recorded = replace(self.recorded, rows=named)
            stream.begin = self._begin
            found[name] = stream
        return found

    def _begin(self) -> None:
        """Write down all that the streams share, so that the whole command can be gone on with."""
        if not is_first_process() or self.run.resolved.is_file():
            return
        self.run.path.mkdir(parents=True, exist_ok=True)
        write_json(self.run.env, environment())
        write_text(self.run.recipe, self.loaded.text or to_yaml(self.loaded.resolved))
        write_text(self.run.resolved, to_yaml(self.loaded.resolved))

    def _together(self, rows: Mapping[str, list[ResultRow]], folder: Path) -> Iterator[ResultRow]:
        """The rows of the mean: for every fold, seed and network that all streams have."""
        first = next(iter(rows.values()))
        for row in first:
            top = _TOPS.get(row.metric.removeprefix(f"{self.config.finetune.metric}_"))
            is_main = row.name == first[0].name
            found = {
                name: _like(row, of_stream, of_stream[0].name if is_main else row.name)
                for name, of_stream in rows.items()
            }
            members = {name: one for name, one in found.items() if one is not None}
            if top is None or len(members) < len(rows):
                continue
            scores = averaged([read_scores(self._scores_path(folder / name, one)) for name, one in members.items()])
            yield _mean_row("" if is_main else f", {row.name}", members, scores, top, protocol_note(self.loaded))

    def _scores_path(self, folder: Path, row: ResultRow) -> Path:
        """Where the probabilities behind a row of a stream lie."""
        run = next(r for r in self.runs if (r.fold, r.seed) == (row.context["fold"], row.context["seed"]))
        own = folder if len(self.runs) == 1 else folder / run.name
        return own / row.context["folder"] / SCORES


def _like(row: ResultRow, others: Iterable[ResultRow], name: str) -> ResultRow | None:
    """The row of another stream for the same metric, fold and seed; None where there is none."""
    key = (row.metric, row.context["fold"], row.context["seed"])
    return next((o for o in others if o.name == name and (o.metric, o.context["fold"], o.context["seed"]) == key), None)


def _named(stream: str, rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows of a stream under its name; those of what stands beside its network have theirs behind it."""
    main = rows[0].name
    return [
        replace(
            row,
            name=stream if row.name == main else f"{stream}, {row.name}",
            context={**row.context, "stream": stream, "stream_row": row.name},
        )
        for row in rows
    ]


def _mean_row(
    beside: str, members: Mapping[str, ResultRow], scores: Scores, top: int, protocol: Mapping[str, Any]
) -> ResultRow:
    """The row of the mean of several networks. beside: what its name ends in. members: their own rows, by the names of the
    streams. top: among how many classes the label must be.
    """
    like = next(iter(members.values()))
    count = "two" if len(members) == 2 else str(len(members))
    hashes = {key: _joined(row.context.get(key, "") for row in members.values()) for key in _HASHES}
    notes = [
        note for row in members.values() for note in row.context.get("notes", ()) if not note.startswith("protocol ")
    ]
    told = f"the mean of the class probabilities of {' and '.join(members)}"
    context = {
        **{key: value for key, value in like.context.items() if key not in ("head", "training", "folder")},
        **hashes,
        "backbone": {"name": " + ".join(row.context["backbone"]["name"] for row in members.values()), "options": {}},
        "streams": {name: row.name for name, row in members.items()},
        "protocol": dict(protocol),
        "notes": [*dict.fromkeys(notes), told],
        "predictions": list(scores.predictions()),
    }
    correct_N = scores.correct_in_top(top)
    return ResultRow.counted(
        f"{count}-stream{beside}", like.metric, correct_N, like.chance, like.ids, like.groups, context
    )


_HASHES = ("weights_sha256", "trained_sha256", "manifest_sha256")


def _joined(hashes: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


# ---- what the recipe and the command say


def _check_streams(streams: Mapping[str, Any]) -> None:
    """Raise RecipeError, with every problem, where streams are not two or more groups of what they may have of their own."""
    problems = (
        []
        if len(streams) > 1
        else [f"streams ({', '.join(streams)}) must be two or more. Add another, or write its keys without streams."]
    )
    for name, group in streams.items():
        if not _NAME.fullmatch(name):
            problems.append(
                f"streams: the name {name!r} must begin with a letter and have letters, digits, - and _ alone."
            )
        if not isinstance(group, Mapping):
            problems.append(f"streams.{name} ({group!r}) must be a group of keys: {', '.join(_OWN)}.")
            continue
        problems += _foreign_keys(f"streams.{name}", group)
    if problems:
        raise RecipeError("\n".join(problems))


def _foreign_keys(where: str, group: Mapping[str, Any]) -> Iterator[str]:
    for key, value in group.items():
        if key not in _OWN:
            yield f"{where}.{key} is that of all streams. Write it without {where}. {did_you_mean(key, _OWN)}"
        elif _OWN[key] and isinstance(value, Mapping):
            for inner in value:
                if inner not in _OWN[key]:
                    yield f"{where}.{key}.{inner} is that of all streams, who answer about the same videos. Set {key}.{inner}."


def _weights(backbones: Any, streams: Mapping[str, Any]) -> dict[str, Any]:
    """Stream -> its weights: what is named for it (``temporal=runs/flow``), or the one that is named for all.

    Raises:
        RecipeError: a stream has none, or there is no stream of that name.
    """
    named: dict[str, Any] = {}
    for_all: list[Any] = []
    for spec in listed(backbones):
        word, equals, weights = str(spec).partition("=")
        if equals and _NAME.fullmatch(word) and not Path(str(spec)).exists():
            named[word] = weights
        else:
            for_all.append(spec)
    unknown = [word for word in named if word not in streams]
    if unknown:
        raise RecipeError(
            f"--backbone {unknown[0]}={named[unknown[0]]} names no stream. {did_you_mean(unknown[0], streams)}"
        )
    if len(for_all) > 1 or (not for_all and len(named) < len(streams)):
        raise RecipeError(
            f"each of the streams {', '.join(streams)} needs weights. Add --backbone random, or --backbone NAME=WEIGHTS for each."
        )
    return {name: named.get(name, for_all[0] if for_all else None) for name in streams}
