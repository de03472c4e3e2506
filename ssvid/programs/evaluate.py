"""The one loop behind ``probe``, ``retrieve``, ``finetune`` and ``evaluate``: every network of a table is asked the same
questions, on every official split and with every seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from ssvid.backbones import Backbone
from ssvid.data.collection import load_manifest
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest
from ssvid.errors import RecipeError
from ssvid.evals.contract import LabeledData, Seen, Tools, evaluations
from ssvid.evals.measuring import Around, Asked, ask, need_vectors
from ssvid.exports import load_backbone
from ssvid.features.protocol import FeatureProtocol
from ssvid.files import takes_paths
from ssvid.programs.lineup import lineup, networks_beside, supervised_network
from ssvid.programs.outcome import Outcome, conclude
from ssvid.programs.pretrain import RUNS
from ssvid.programs.repeating import Recorded
from ssvid.programs.runs import RANDOM, Run, Weights, config_of, more_overrides, runs_of
from ssvid.programs.scored_videos import check_listed, need_labels, scored_rows, split_note
from ssvid.progress import speaker
from ssvid.ranks import agreed, cores_for_network, is_first_process, resolve_device
from ssvid.recipe.building import check_modality
from ssvid.recipe.load import LoadedRecipe, load_recipe
from ssvid.recipe.protocol_notes import tagged, wanted_metrics
from ssvid.recipe.schema import EvaluationRecipe
from ssvid.results.rows import ResultRow
from ssvid.train.run_folder import next_beside, next_free

DROPPED_BATCH = 8  # of VCOP's script


# ---- the networks of one table


class Scored(NamedTuple):
    """The rows of a table. asked: what they answer. seen: the vectors of each subject; {} where none were needed."""

    rows: list[ResultRow]
    asked: Asked
    seen: dict[str, Seen]


def score(
    config: EvaluationRecipe,
    networks: Mapping[str, Backbone],
    architecture: Backbone,
    data: LabeledData,
    tools: Tools,
    *,
    metrics: Sequence[str] = (),
    around: Around | None = None,
) -> Scored:
    """The rows of each named network, then the baselines of the recipe: the random row of the same architecture, seed and
    stage, the first network on single and on shuffled frames, and histograms and trajectories without a network.

    Args:
        architecture: what the baselines are made of.
        metrics: what is asked for, by the starts of its names; () is everything. What is not asked for is not computed.
    """
    asked, features = prepared(config, architecture, tools, metrics)
    for evaluation, options in asked.items():
        evaluation.check(options, data.num_train)
        evaluation.check_data(architecture, data, options, tools)
    shown = data.in_batches_of(DROPPED_BATCH) if "drop_last" in features.defects else data
    with cores_for_network(tools.device, features.workers) if need_vectors(asked) else contextlib.nullcontext():
        subjects, notes = lineup(networks, architecture, features, config.baselines, data, tools, asked)
        rows, seen = ask(asked, subjects, shown, tools, around or Around())
    return Scored(with_notes(rows, notes), asked, seen)


def prepared(
    config: EvaluationRecipe, network: Backbone, tools: Tools, metrics: Sequence[str] = ()
) -> tuple[Asked, FeatureProtocol]:
    """The evaluations that a recipe asks for, with their options, and how they show videos to networks of this kind.

    Raises:
        RecipeError: an option makes no sense or does not fit the network.
    """
    features, asked = config.shown, Asked()
    for name, options in config.asks().items():
        evaluation = evaluations.get(name)()
        if not metrics or any(wanted.startswith(evaluation.metrics) for wanted in metrics):
            features, options = evaluation.prepare(features, options, network, tools)
            evaluation.check(options)
            asked[evaluation] = options
    return asked, features


def with_notes(rows: Iterable[ResultRow], notes: Sequence[str]) -> list[ResultRow]:
    """The rows with more that their reader must know; "" is nothing."""
    more = [note for note in notes if note]
    return [replace(r, context={**r.context, "notes": [*r.context.get("notes", ()), *more]}) for r in rows]


# ---- the splits and seeds of one command


class Command:
    """A command that evaluates a backbone: its recipe, its runs and what all of them come to. Kinds that load weights in
    another way, or train, override a step.

    kind: of its recipes. arguments: of the program, by which ``--from`` repeats it. recorded: the result that is repeated, if
    one is. made: what its runs have in common (``Tools.once``). table: of the videos that were scored last.
    """

    table: Manifest

    def __init__(
        self,
        kind: str,
        recipe: Any,
        overrides: Sequence[str],
        arguments: dict[str, Any],
        *,
        nested: Mapping[str, Any],
        from_results: Weights | None,
        show_progress: bool,
    ) -> None:
        self.kind, self.show_progress, self.say = kind, show_progress, speaker(show_progress)
        self.arguments, self.recorded = arguments, None
        self.made: dict[Any, Any] = {}
        if from_results is not None:
            self.recorded = Recorded.read(from_results, kind)
            recipe, overrides, self.arguments = self.recorded.repeated(recipe, overrides, arguments)
        if recipe is None:
            raise RecipeError(f"ssvid {kind} needs a recipe, or --from RESULTS to repeat a result. See: ssvid recipes")
        if not self.arguments["backbone"]:
            raise RecipeError(f"ssvid {kind} needs the weights to score. Add --backbone PATH, or --backbone random.")
        overrides = [*overrides, *more_overrides(kind, self.arguments)]
        self.loaded = load_recipe(recipe, overrides, nested=nested, kind=kind)
        self.config = cast(Any, self.loaded.recipe)  # of the kind that was asked for
        self.metrics = wanted_metrics(self.loaded)
        for name in self.config.asks():
            if self.config.data.modality not in (legal := evaluations.get(name).modalities):
                raise RecipeError(
                    f"data.modality ({self.config.data.modality}) is not what {name} is asked of. Set data.modality={legal[0]}."
                )
            verb = evaluations.get(name).verb
            if kind in ("evaluate", "probe") and name == self._named() and verb != kind:
                raise RecipeError(f"evaluation.name ({name}) has a verb of its own. Run it with: ssvid {verb}")
        self.runs = self.planned()

    def _named(self) -> str:
        """The evaluation that the recipe names; "" where its kind says what is asked."""
        return str(self.config.evaluation.name) if hasattr(self.config, "evaluation") else ""

    def planned(self) -> list[Run]:
        """The runs of the command."""
        return runs_of(self.config, self.arguments)

    def folder(self, out: Weights | None = None) -> Path:
        """Where results go: ``out``, or a new folder beside the run that the backbone belongs to."""
        return evaluation_folder(self.kind, out, self.runs[0].backbone, self.loaded)

    def evaluate(self, folder: Path) -> Outcome:
        """Every split with every seed, one after the other; the results are written into the folder."""
        rows: list[ResultRow] = []
        pictures: list[Path] = []
        for run in self.runs:
            if len(self.runs) > 1:
                self.say(f"fold {run.fold}, seed {run.seed}")
            scored, data = self.score(run)
            self.table = data.manifest
            of_run = tagged(scored.rows, run.fold, run.seed, run.recipe_seed, self.loaded, data.manifest)
            rows += of_run
            first = [row for row in of_run if row.name == of_run[0].name]
            ending = f"-{run.name}" * (len(self.runs) > 1)
            for evaluation, options in scored.asked.items() if is_first_process() else ():
                pictures += evaluation.draw(folder, ending, first, scored.seen.get(first[0].name), data, options)  # type: ignore[arg-type]
        outcome = conclude(folder, rows, self.loaded, self.arguments, data.manifest, recorded=self.recorded)
        outcome.pictures += pictures
        return outcome

    def score(self, run: Run) -> tuple[Scored, LabeledData]:
        """The rows of one split and seed, once weights and videos are there, and are those of a result to repeat."""
        config = config_of(self.config, run)
        tools = self.tools(config, run)
        network = self.network(config, run)
        check_modality(config.data, network.info)
        asked, _ = prepared(config, network, tools, self.metrics)
        manifest = self.manifest(config, asked, run)
        labels = need_labels(asked)
        data = LabeledData.checked(manifest, *scored_rows(manifest, config.data, labels=labels), labels=labels)
        networks = networks_beside(network, run, self.show_progress)
        if self.recorded is not None:
            self.recorded.check_data(manifest, run)
            self.recorded.check_weights(networks, run)
        if supervised := self.arguments.get("supervised"):
            networks["supervised"] = supervised_network(network, str(supervised))
        scored = score(config, networks, network, data, tools, metrics=self.metrics, around=self.around(run, config))
        return scored._replace(rows=with_notes(scored.rows, [split_note(manifest, config.data, labels=labels)])), data

    def tools(self, config: Any, run: Run) -> Tools:
        """What the evaluations of one run are handed."""
        return Tools(self.arguments["device"], cache_folder() / "features", config.seed, self.say, made=self.made)

    def network(self, config: Any, run: Run) -> Backbone:
        """The network with its weights."""
        named = {"name": config.backbone.name or None, "options": config.backbone.options or None}
        return load_backbone(run.backbone, partial=self.arguments["partial"], seed=config.seed, **named)

    def manifest(self, config: Any, asked: Asked, run: Run) -> Manifest:
        """The table of videos. What their list can tell to be wrong is told before a file is read."""
        check_listed(config.data, asked)
        return load_manifest(config.data, self.say)

    def around(self, run: Run, config: Any) -> Around:
        """What is done around the rows of one run."""
        return Around()


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


# ---- the programs


def program(kind: str, about: str) -> Callable[..., Outcome]:
    """The program for recipes of one kind that train no network. about: its docstring, to the point where all are alike."""

    @takes_paths("recipe", "backbone", "placebo", "supervised", "out", "from_results")
    def call(
        recipe: str | Path | Mapping[str, Any] | None = None,
        *overrides: str,
        backbone: Weights | Sequence[Weights] = (),
        backbone_name: str | None = None,
        placebo: Weights | Sequence[Weights] | None = None,
        supervised: str | Path | None = None,
        out: str | Path | None = None,
        partial: bool = False,
        untrained_stage: bool = False,
        device: str = "auto",
        from_results: str | Path | None = None,
        show_progress: bool = True,
        **nested: Any,
    ) -> Outcome:
        arguments: dict[str, Any] = {
            "backbone": backbone,
            "backbone_name": backbone_name,
            "placebo": placebo,
            "supervised": supervised,
            "partial": partial,
            "untrained_stage": untrained_stage,
            "device": resolve_device(device),
        }
        more: dict[str, Any] = {"nested": nested, "from_results": from_results, "show_progress": show_progress}
        command = Command(kind, recipe, overrides, arguments, **more)
        return command.evaluate(command.folder(out))

    call.__name__ = call.__qualname__ = kind
    call.__doc__ = f"""{about}

    Args:
        recipe: shipped name, path, named protocol, or mapping of kind ``{kind}``. overrides, nested: as for ``pretrain``.
        backbone: checkpoint, run folder, export, or ``random`` (then ``backbone_name`` or the recipe names the network);
            several of them are taken for the same pretraining with several seeds.
        placebo: the same of a run with ``task.placebo=true``, one for each backbone; or ``train`` to train it now from
            the checkpoint's recipe.
        supervised: weights of the same network that were trained on labels, for a row beside: as ``init_from`` takes them
            (``torchvision:KINETICS400_V1``).
        out: folder for ``results.json`` and pictures; beside the checkpoint, numbered, where None.
        partial: accept weights that fill the network only in part; every result says so.
        untrained_stage: score stages that pretraining never trained, too.
        device: ``auto``, ``cpu`` or ``cuda``.
        from_results: a ``results.json`` to repeat: its recipe and arguments are taken, and its hashes must fit.

    Raises:
        SsvidError: any mistake in the recipe, the weights or the data.
    """
    return call


evaluate = program("evaluate", "Ask one evaluation, ours or that of another package, of a backbone and its baselines.")
