"""Loading recipes: merging, typing, and every problem told at once with name, value, rule and way out."""

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ssvid.errors import PluginError, RecipeError
from ssvid.recipe.check import Typing, build, describe, leaf_paths, options_of
from ssvid.recipe.find import find_recipe, list_recipes, shipped_recipes_dir
from ssvid.recipe.load import LoadedRecipe, diff_recipes, load_recipe, value_at
from ssvid.recipe.options import make_backbone_options, make_task_config
from ssvid.recipe.schema import KINDS, USED_ONLY_WHEN, PretrainRecipe, ProbeRecipe
from ssvid.recipe.yaml_text import parse_yaml, to_yaml
from ssvid.tasks import PretextTask, tasks
from ssvid.train.optim import check_optim
from ssvid.video.decoders.choice import DecoderStatus

RECIPE = """\
# A recipe for tests.
kind: pretrain
data: {root: videos}
backbone: {name: tiny3d, options: {width: 8}}
task: {name: speediness, options: {num_frames: 16, normal_factors: [1, 1.5]}}
optim: {name: adamw, base_lr: 1e-3, betas: [0.8, 0.9]}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def problems_of(source, *overrides, **options) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, overrides, **options)
    return str(caught.value)


# ---- merging and typing


def test_defaults_then_recipe_then_overrides_then_call(recipe):
    loaded = load_recipe(recipe, ["optim.epochs=7", "optim.epochs=8", "seed=3"], nested={"seed": 4})
    assert isinstance(loaded.recipe, PretrainRecipe)
    assert loaded.recipe.optim.epochs == 8  # the later override
    assert loaded.recipe.seed == 4
    assert loaded.recipe.optim.base_lr == 1e-3  # the recipe
    assert loaded.recipe.optim.weight_decay == 1e-4  # the default
    assert loaded.text == RECIPE
    assert loaded.path == recipe


@pytest.mark.parametrize(
    ("optim", "overrides", "warmup"),
    [
        ("epochs: 20, warmup_epochs: 2", ["optim.epochs=1"], 0.1),  # the recipe's tenth
        ("epochs: 20, warmup_epochs: 2", ["optim.epochs=10"], 1.0),
        ("epochs: 20, warmup_epochs: 2", ["optim.epochs=40"], 2),
        ("epochs: 20, warmup_epochs: 2", ["optim.epochs=1", "optim.warmup_epochs=1"], 1),
        ("epochs: 20, warmup_epochs: 0", ["optim.epochs=1"], 0),
        ("epochs: 4", [], 0.2),  # the default of 5 in 100 does not fit
        ("epochs: 20", [], 5),  # it does
    ],
)
def test_fewer_epochs_shorten_a_warmup_that_nobody_set_for_them(tmp_path, optim, overrides, warmup):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("base_lr: 1e-3", f"base_lr: 1e-3, {optim}"))
    loaded = load_recipe(tmp_path / "r.yaml", overrides)
    assert loaded.resolved["optim"]["warmup_epochs"] == pytest.approx(warmup)
    is_scaled = loaded.origins.get("optim.warmup_epochs") == "scaled"
    assert is_scaled == any("keep the share of warm-up" in note for note in loaded.notes)
    check_optim(loaded.recipe.optim)


def test_every_shipped_recipe_runs_for_one_epoch():
    recipes = list_recipes()
    assert len(recipes) > 20
    for recipe in recipes:
        loaded = load_recipe(recipe.name, allow_missing=True)
        for group in {"optim"} & set(loaded.resolved):
            short = load_recipe(recipe.name, [f"{group}.epochs=1"], allow_missing=True).resolved[group]
            assert short["warmup_epochs"] <= 0.5


def test_a_warmup_set_with_too_few_epochs_is_a_mistake(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("base_lr: 1e-3", "base_lr: 1e-3, epochs: 2, warmup_epochs: 3"))
    with pytest.raises(RecipeError, match=r"optim.warmup_epochs \(3.0\) must lie between 0 and optim.epochs \(2\)"):
        check_optim(load_recipe(tmp_path / "r.yaml").recipe.optim)


def test_origins_say_who_set_a_value(recipe):
    origins = load_recipe(recipe, ["optim.epochs=7"], nested={"seed": 4}).origins
    assert origins["optim.base_lr"] == "recipe"
    assert origins["optim.epochs"] == "command line"
    assert origins["seed"] == "call"
    assert "optim.momentum" not in origins


def test_values_are_converted_to_the_declared_types(recipe):
    loaded = load_recipe(recipe, ["trainer.devices=2", "optim.warmup_epochs=3", "data.split=01", "optim.betas=[0,0.5]"])
    assert loaded.resolved["trainer"]["devices"] == "2"
    assert repr(loaded.resolved["optim"]["warmup_epochs"]) == "3.0"
    assert loaded.resolved["data"]["split"] == "01"
    assert repr(loaded.resolved["optim"]["betas"]) == "[0.0, 0.5]"
    assert repr(loaded.resolved["task"]["options"]["normal_factors"]) == "[1.0, 1.5]"


def test_options_are_merged_key_by_key_with_the_defaults_of_the_task_and_backbone(recipe):
    resolved = load_recipe(recipe, ["task.options.flip=false", "backbone.options.stride_time=2"]).resolved
    assert resolved["task"]["options"]["num_frames"] == 16
    assert resolved["task"]["options"]["flip"] is False
    assert resolved["task"]["options"]["sped_factors"] == [1.7, 2.2]
    assert resolved["backbone"]["options"]["width"] == 8
    assert resolved["backbone"]["options"]["stride_time"] == 2


def test_another_network_is_not_given_the_options_of_the_recipes_own(recipe):
    """The recipe's ``width`` would be an unknown key, and nothing that can be typed would take it back."""
    loaded = load_recipe(recipe, ["backbone.name=r3d_18", "backbone.options.stride_time=4"])
    assert loaded.resolved["backbone"]["name"] == "r3d_18"
    assert loaded.resolved["backbone"]["options"].items() >= {"stride_time": 4, "stride_space": 16}.items()
    assert "width" not in loaded.resolved["backbone"]["options"]
    assert loaded.notes == ("backbone.name=r3d_18: the backbone.options of tiny3d are left out",)
    assert "backbone.options.width" not in loaded.origins
    assert loaded.origins["task.options.num_frames"] == "recipe"
    said_with_it = problems_of(recipe, "backbone.name=r3d_18", "backbone.options.width=4")
    assert "unknown key 'backbone.options.width'" in said_with_it
    same = load_recipe(recipe, ["backbone.name=tiny3d"])
    assert same.resolved["backbone"]["options"]["width"] == 8
    assert not same.notes


def _types_in(value: Any) -> set[type]:
    if isinstance(value, dict):
        return {dict}.union(*map(_types_in, value), *map(_types_in, value.values()))
    if isinstance(value, list):
        return {list}.union(*map(_types_in, value))
    return {type(value)}


def test_only_plain_types_leave(recipe):
    np = pytest.importorskip("numpy")
    loaded = load_recipe(recipe, nested={"seed": np.int64(5), "data": {"root": recipe.parent}})
    assert _types_in(loaded.resolved) <= {dict, list, str, int, float, bool, type(None)}
    assert _types_in(loaded.recipe.task.options) <= {dict, list, str, int, float, bool, type(None)}
    assert loaded.resolved["seed"] == 5
    assert loaded.resolved["data"]["root"] == str(recipe.parent)


def test_the_resolved_recipe_loads_as_itself(recipe, tmp_path):
    first = load_recipe(recipe, ["optim.schedule=step", "optim.step_epochs=[3,5]"])
    path = tmp_path / "recipe.resolved.yaml"
    path.write_text(to_yaml(first.resolved))
    assert parse_yaml(path.read_text(), "x") == first.resolved
    for again in (load_recipe(path), load_recipe(first.resolved)):
        assert again.resolved == first.resolved
        assert again.recipe == first.recipe


def test_an_empty_group_is_its_defaults(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE + "loader:\ntrainer: {}\n")
    resolved = load_recipe(tmp_path / "r.yaml").resolved
    assert resolved["loader"]["global_batch"] == 32
    assert resolved["trainer"]["devices"] == "auto"


def test_missing_values_can_be_allowed_to_show_a_recipe(recipe):
    loaded = load_recipe(recipe, ["data.root=???"], allow_missing=True)
    assert loaded.resolved["data"]["root"] == "???"


# ---- problems


def test_every_problem_is_reported_at_once(tmp_path):
    text = RECIPE.replace("videos", "???").replace("width: 8", "wdth: 8, stride_time: x") + "optm: {epochs: 3}\n"
    (tmp_path / "r.yaml").write_text(text)
    message = problems_of(
        tmp_path / "r.yaml", "optim.base_lrr=1", "optim.epochs=many", "task.options.flop=true", "seed", "loader=3"
    )
    assert "has 9 problems" in message
    for part in [
        "override 'seed' must read key.path=value",
        "unknown key 'optim.base_lrr'. Did you mean 'base_lr'?",
        "optim.epochs ('many') must be a whole number. Set optim.epochs=...",
        "unknown key 'task.options.flop'. Did you mean 'flip'?",
        "unknown key 'backbone.options.wdth'. Did you mean 'width'? Known: in_channels, input, stride_time, width.",
        "backbone.options.stride_time ('x') must be a whole number",
        "loader (3) must be a group of keys: global_batch",
        "unknown key 'optm'. Did you mean 'optim'?",
        "data.root is not set. Add data.root=... to the command",
    ]:
        assert part in message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("epochs=3", ["unknown key 'epochs'", "Did you mean 'optim.epochs'?"]),
        ("seed=1.5", ["seed (1.5) must be a whole number"]),
        ("seed=true", ["seed (True) must be a whole number"]),
        ("seed=null", ["seed (None) must be a whole number"]),
        ("seed={a: 1}", ["seed ({'a': 1}) must be a whole number"]),
        ("seed.a=1", ["seed ({'a': 1}) must be a whole number"]),
        ("optim.base_lr=fast", ["optim.base_lr ('fast') must be a number"]),
        ("optim.base_lr=.nan", ["optim.base_lr (nan) must be a number"]),
        ("optim.betas=0.9", ["optim.betas (0.9) must be a list of numbers"]),
        ("optim.betas=[0.9,x]", ["optim.betas ([0.9, 'x']) must be a list of numbers"]),
        ("task.options.normal_factors=[1]", ["task.options.normal_factors ([1]) must be a list of 2 numbers"]),
        ("task.placebo=maybe", ["task.placebo ('maybe') must be true or false"]),
        ("data.split=true", ["data.split (True) must be text"]),
        ("task.options=3", ["task.options (3) must be a group of keys: num_frames"]),
        ("task.name=spediness", ["unknown task 'spediness'", "Did you mean 'speediness'?"]),
        ("backbone.name=tiny2d", ["unknown backbone 'tiny2d'", "Did you mean 'tiny3d'?", "r3d_18"]),
        ("kind=pretrian", ["unknown kind 'pretrian'", "Did you mean 'pretrain'?"]),
        ("kind=[1]", ["unknown kind [1]"]),
        ("kind=null", ["kind is not set", "pretrain, probe"]),
        ("data.root=${oc.env:HOME}", ["data.root ('${oc.env:HOME}') holds '${'", "not interpolated"]),
        ("task.name=${x}", ["task.name ('${x}') holds '${'"]),
        ("_target_=os.system", ["unknown key '_target_'"]),
        ("backbone._target_=os.system", ["unknown key 'backbone._target_'"]),
        ("data.root=[1", ["override 'data.root=[1'", "YAML", "quote it twice"]),
        ("=3", ["override '=3' must read key.path=value"]),
        ("a..b=3", ["override 'a..b=3' must read key.path=value"]),
        ("optim.momentum=0.5", ["optim.momentum (0.5) does nothing where optim.name is 'adamw'", "sgd", "Remove it"]),
        ("data.list=x.txt", ["data.list ('x.txt') does nothing where data.name is 'folder'", "list or manifest"]),
    ],
)
def test_messages(recipe, override, parts):
    message = problems_of(recipe, override)
    for part in [str(recipe), *parts]:
        assert part in message


def test_a_key_at_its_default_is_never_dead(recipe):
    load_recipe(recipe, ["optim.momentum=0.9", "data.list="])


def test_settings_of_the_other_solver_are_dead():
    words = ("data.root=x", "probe.head_epochs=5", "probe.learning_rates=[1]")
    message = problems_of("probe/folder", *words, kind="probe")
    assert "probe.head_epochs (5) does nothing where probe.solver is 'lbfgs'; it is used with sgd" in message
    assert "probe.learning_rates" in message
    message = problems_of("probe/folder", "data.root=x", "probe.solver=sgd", "probe.regularization=[1]", kind="probe")
    assert "probe.regularization ([1]) does nothing where probe.solver is 'sgd'; it is used with lbfgs" in message


def test_the_table_of_dead_keys_names_keys_that_exist():
    known = {path for schema in KINDS.values() for path in leaf_paths(schema)}
    deciders = {rule.decider for rule in USED_ONLY_WHEN.values()}
    assert deciders | {path for path in USED_ONLY_WHEN if not path.endswith(".")} <= known
    assert all(any(at.startswith(path) for at in known) for path in USED_ONLY_WHEN if path.endswith("."))


@pytest.mark.parametrize(
    ("said", "overrides", "idle"),
    [
        (
            {"kind": "finetune", "finetune": {"every_epochs": 5, "refit": True}},
            ["finetune.holdout_fraction=0"],
            "finetune.every_epochs",
        ),
        ({"kind": "probe", "probe": {"regularization": [0.1]}}, ["probe.solver=sgd"], "probe.regularization"),
        ({"kind": "finetune", "optim": {"name": "sgd", "momentum": 0.8}}, ["optim.name=adamw"], "optim.momentum"),
    ],
)
def test_a_recipe_whose_key_was_switched_off_later_can_be_read_again_as_a_whole(said, overrides, idle):
    first = load_recipe({**said, "data": {"root": "v"}}, overrides)
    again = load_recipe(first.resolved)
    assert again.resolved == first.resolved
    alone = load_recipe({"kind": said["kind"], "data": {"root": "v"}})
    assert value_at(first.resolved, idle) == value_at(alone.resolved, idle), "a key that does nothing has its default"


@pytest.mark.parametrize(
    ("kind", "overrides", "text"),
    [
        (
            "pretrain",
            ["online.features.batch_size=8"],
            r"online.features.batch_size \(8\) does nothing where online.every_epochs is 0",
        ),
        ("pretrain", ["online.knn_k=3"], r"online.knn_k \(3\) does nothing"),
        (
            "pretrain",
            ["logger.project=mine"],
            r"logger.project \('mine'\) does nothing where logger.wandb is 'disabled'",
        ),
        ("pretrain", ["monitor.features=false", "monitor.max_vectors=9"], r"monitor.max_vectors \(9\) does nothing"),
        ("pretrain", ["monitor.keep_best=false", "monitor.best_metric=loss"], r"monitor.best_metric .* does nothing"),
        (
            "finetune",
            ["finetune.jitter_probability=0.1"],
            r"finetune.jitter_probability \(0.1\) does nothing where finetune.jitter",
        ),
        ("finetune", ["finetune.holdout_fraction=0", "finetune.refit=true"], r"finetune.refit \(True\) does nothing"),
        (
            "finetune",
            ["finetune.frozen=true", "finetune.layer_decay=0.5"],
            r"finetune.layer_decay \(0.5\) does nothing",
        ),
        (
            "finetune",
            ["optim.step_epochs=[3]"],
            r"optim.step_epochs \(\[3\]\) does nothing where optim.schedule is 'cosine'",
        ),
        ("probe", ["data.val_fraction=0.2"], r"data.val_fraction \(0.2\) does nothing where kind is 'probe'"),
        ("probe", ["data.segment_seconds=3"], r"data.segment_seconds \(3\) does nothing"),
    ],
)
def test_a_key_that_is_set_without_effect_is_a_mistake(recipe, kind, overrides, text):
    source = recipe if kind == "pretrain" else {"kind": kind, "data": {"root": "v"}}
    with pytest.raises(RecipeError, match=text):
        load_recipe(source, overrides)


def test_a_key_with_effect_is_none(recipe):
    load_recipe(
        recipe, ["online.every_epochs=1", "online.features.batch_size=8", "logger.wandb=offline", "logger.project=x"]
    )
    # What a recipe sets and the command line switches off was not set in vain.
    recipe.write_text(recipe.read_text() + "online: {every_epochs: 1, knn_k: 3}\n")
    load_recipe(recipe, ["online.every_epochs=0"])
    with pytest.raises(RecipeError, match=r"online.knn_k \(4\) does nothing"):
        load_recipe(recipe, ["online.every_epochs=0", "online.knn_k=4"])


def test_the_kind_must_be_the_one_that_the_caller_runs(recipe):
    message = problems_of(recipe, kind="probe")
    assert "its kind is 'pretrain', and 'probe' is asked for" in message
    assert "ssvid pretrain" in message


@pytest.mark.parametrize(
    ("text", "held"), [("", "nothing"), ("[1]", "a list"), ("words", "a str"), ("# only\n", "nothing")]
)
def test_a_recipe_must_be_a_group_of_keys(tmp_path, text, held):
    (tmp_path / "r.yaml").write_text(text)
    assert f"holds {held}; it must hold keys" in problems_of(tmp_path / "r.yaml")


def test_a_nested_call_is_checked_like_an_override(recipe):
    message = problems_of(recipe, nested={"optim": {"epochz": 3}, "data": {"root": "${x}"}})
    assert "unknown key 'optim.epochz'" in message
    assert "holds '${'" in message


# ---- options of strangers


class Color(enum.Enum):
    RED = 1
    GREEN = 2


@dataclass(frozen=True)
class Inner:
    depth: int = 2


@dataclass(frozen=True)
class StrangerConfig:
    size: int  # no default
    mode: Literal["a", "b"] = "a"
    color: Color = Color.RED
    limit: float | None = None
    either: int | str = 3
    names: tuple[str, ...] = ("x",)
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    table: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def stranger(monkeypatch):
    class Stranger(PretextTask):
        Config = StrangerConfig

    tasks.load()
    monkeypatch.setitem(tasks._entries, "stranger", Stranger)


def test_a_strangers_config_types_its_options(recipe, stranger):
    base = ["task={name: stranger}"]
    source = {**parse_yaml(RECIPE, "r"), "task": {"name": "stranger", "options": {"size": 3}}}
    plain = load_recipe(source).resolved["task"]["options"]
    assert plain == {
        "size": 3, "mode": "a", "color": "RED", "limit": None, "either": 3, "names": ["x"], "inner": {"depth": 2},
        "maybe": None, "table": {},
    }  # fmt: skip
    changed = load_recipe(
        source,
        ["task.options.mode=b", "task.options.color=GREEN", "task.options.limit=2", "task.options.names=[p,q]",
         "task.options.inner.depth=5", "task.options.maybe={depth: 1}", "task.options.table.k=4"],
    )  # fmt: skip
    config = make_task_config("stranger", changed.recipe.task.options)
    assert config == StrangerConfig(3, "b", Color.GREEN, 2.0, 3, ("p", "q"), Inner(5), Inner(1), {"k": 4})
    assert base


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("mode=c", "task.options.mode ('c') must be one of 'a', 'b'"),
        ("color=BLUE", "task.options.color ('BLUE') must be one of RED, GREEN"),
        ("limit=x", "task.options.limit ('x') must be a number or null"),
        ("either=1.5", "task.options.either (1.5) must be a whole number or text"),
        ("inner.dept=1", "unknown key 'task.options.inner.dept'. Did you mean 'depth'?"),
        ("inner=1", "task.options.inner (1) must be a group of keys: depth"),
        ("table={k: v}", "task.options.table ({'k': 'v'}) must be a group of keys"),
        ("size=???", "task.options.size is not set. Add task.options.size=..."),
    ],
)
def test_messages_about_a_strangers_options(recipe, stranger, option, part):
    source = {**parse_yaml(RECIPE, "r"), "task": {"name": "stranger", "options": {"size": 3}}}
    assert part in problems_of(source, f"task.options.{option}")


def test_a_strangers_config_that_cannot_be_typed_is_named(recipe, monkeypatch):
    @dataclass
    class Odd:
        thing: object = None
        what: "NotThere" = None  # type: ignore[name-defined]  # noqa: F821

    class OddTask(PretextTask):
        Config = Odd

    class NotADataclass(PretextTask):
        Config = dict

    tasks.load()
    monkeypatch.setitem(tasks._entries, "odd", OddTask)
    monkeypatch.setitem(tasks._entries, "plain", NotADataclass)
    source = parse_yaml(RECIPE, "r")
    assert "the options of task 'odd' cannot be typed (NameError" in problems_of({**source, "task": {"name": "odd"}})
    assert "its Config (<class 'dict'>) must be a dataclass" in problems_of({**source, "task": {"name": "plain"}})


def test_a_task_without_options_refuses_any(monkeypatch):
    class Bare(PretextTask):
        pass

    tasks.load()
    monkeypatch.setitem(tasks._entries, "bare", Bare)
    source = {**parse_yaml(RECIPE, "r"), "task": {"name": "bare"}}
    assert load_recipe(source).resolved["task"]["options"] == {}
    assert "unknown key 'task.options.x'. None is known." in problems_of(source, "task.options.x=1")


def test_options_of_a_function_are_its_keyword_arguments():
    def network(*, width: int, names: list[str] = ["a"], scale: float = 0.5, anything=None) -> None:  # noqa: B006
        """A network."""

    options = options_of(network)
    assert [f.name for f in dataclasses.fields(options)] == ["width", "names", "scale", "anything"]
    typing = Typing(options)
    assert typing.apply({"width": 3}) == {"width": 3, "names": ["a"], "scale": 0.5, "anything": None}
    assert not typing.problems


def test_backbone_options_are_completed_and_checked():
    assert make_backbone_options("tiny3d", {"width": 4})["input"] == "rgb"
    with pytest.raises(RecipeError, match=r"options of backbone tiny3d cannot be used[\s\S]*unknown key 'wdth'"):
        make_backbone_options("tiny3d", {"wdth": 4})
    with pytest.raises(PluginError, match="unknown backbone 'tiny'"):
        make_backbone_options("tiny", {})


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (list[int], "a list of whole numbers"),
        (tuple[float, float], "a list of 2 numbers"),
        (tuple[int, str], "a list of 2 values"),
        (tuple[int, ...], "a list of whole numbers"),
        (list[bool], "a list of values, each true or false"),
        (Literal["a", 1], "one of 'a', 1"),
        (dict[str, int], "a group of keys"),
    ],
)
def test_types_in_words(hint, words):
    assert describe(hint) == words


def test_build_makes_nested_dataclasses():
    values = Typing(ProbeRecipe).apply({"data": {"root": "x"}, "probe": {"knn_ks": [1, 5]}})
    recipe = build(ProbeRecipe, values)
    assert recipe.probe.knn_ks == (1, 5)
    assert recipe.data.root == "x"


# ---- comparing


def test_diff_names_every_difference_and_nothing_else(recipe):
    old = load_recipe(recipe).resolved
    assert diff_recipes(old, old) == []
    new = load_recipe(recipe, ["seed=1", "optim.betas=[0.1,0.2]", "task.options.flip=false"]).resolved
    assert diff_recipes(old, new) == [
        "seed: 0 -> 1",
        "task.options.flip: True -> False",
        "optim.betas: [0.8, 0.9] -> [0.1, 0.2]",
    ]
    assert diff_recipes({"a": 1, "b": {"c": 1}}, {"a": 1.0, "d": 2}) == [
        "a: 1 -> 1.0",
        "b: {'c': 1} -> (absent)",
        "d: (absent) -> 2",
    ]


# ---- the recipes that come with ssvid


def _shipped() -> list[str]:
    return [recipe.name for recipe in list_recipes()]


def test_all_recipe_files_are_listed():
    files = [p for p in shipped_recipes_dir().rglob("*") if p.is_file() and p.suffix in (".yaml", ".yml")]
    assert len(files) == len(_shipped()) >= 4


@pytest.mark.parametrize("name", _shipped())
def test_shipped_recipes_load(name):
    values = parse_yaml(find_recipe(name).read_text(encoding="utf-8"), name)
    asked = [f"data.{key}=somewhere" for key, value in values["data"].items() if value == "???"]  # of the user
    loaded = load_recipe(name, asked)
    assert isinstance(loaded, LoadedRecipe)
    again = parse_yaml(to_yaml(loaded.resolved), name)
    assert again == loaded.resolved
    assert load_recipe(again).resolved == loaded.resolved


@pytest.mark.parametrize("name", _shipped())
def test_shipped_recipes_say_what_they_are(name):
    header = next(r for r in list_recipes() if r.name == name).header
    assert len(header.splitlines()[0]) > 10
    for word in ("Command:", "Cost:", "Expected:"):
        assert word in header


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("pretrain", "loader.decoder"),
        ("finetune", "loader.decoder"),
        ("probe", "features.decoder"),
        ("retrieve", "features.decoder"),
    ],
)
def test_a_decoder_is_checked_with_the_recipe_before_a_file_is_read(kind, setting, tmp_path, monkeypatch):
    source = {"kind": kind, "data": {"root": str(tmp_path)}, "backbone": {"name": "tiny3d"}}
    if kind == "pretrain":
        source["task"] = {"name": "speediness"}
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, [f"{setting}=decrod"], kind=kind)
    assert f"{setting} ('decrod') is not known. Did you mean 'decord'? Known: auto, decord, pyav, torchcodec." in str(
        caught.value
    )
    monkeypatch.setattr(
        "ssvid.video.decoders.choice.decoder_status", lambda name: DecoderStatus(None, "not installed: pip install it")
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, [f"{setting}=decord"], kind=kind)
    assert f"{setting} ('decord') does not work here: not installed: pip install it. Take auto" in str(caught.value)
    assert load_recipe(source, [f"{setting}=decord"], kind=kind, allow_missing=True)  # to look at, on another machine


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("seed=-1", r"seed \(-1\) must be 0 or more"),
        ("seed=1000000000000000000000000000000", r"seed \(1000000000000000000000000000000\) must lie between"),
        ("optim.base_lr=" + "9" * 400, r"optim.base_lr \(9{60}\.\.\. \(400 characters\)\) must"),
        ("optim.base_lr=" + "9" * 5000, r"cannot be read as int"),
        ("task.options.num_frames=1000000000", r"task.options.num_frames \(1000000000\) must be at most 10,000"),
        ("task.options.frame_px=99999999", r"task.options.frame_px \(99999999\) must be at most 16,384"),
        ("loader.global_batch=99999999999", r"loader.global_batch \(99999999999\) must be at most"),
        ("optim.epochs=.inf", r"optim.epochs \(inf\) must be a whole number"),
    ],
)
def test_numbers_that_no_machine_can_use_are_refused_before_anything_is_built(recipe, override, text):
    assert len(problems_of(recipe, override)) < 2000
    with pytest.raises(RecipeError, match=text):
        load_recipe(recipe, [override])
