"""``~`` is the home folder at every door: in recipes, on the command line, in Python."""

import inspect

import pytest

import ssvid
from ssvid.cli import main
from ssvid.data.index.building import build_manifest
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest
from ssvid.data.readers import Entry, list_videos
from ssvid.errors import SsvidError
from ssvid.exports import export, initialize, load_backbone
from ssvid.files import expanded, takes_paths
from ssvid.programs.show import show
from ssvid.recipe.check import leaf_paths, marks
from ssvid.recipe.find import find_recipe
from ssvid.recipe.load import load_recipe
from ssvid.recipe.schema import KINDS
from ssvid.video import write_video
from ssvid.weights.loading import read_source
from tests.conftest import moving_square


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with four videos in ``v`` and a list of them."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "v").mkdir(parents=True)
    names = [f"{i}.mp4" for i in range(4)]
    for i, name in enumerate(names):
        write_video(tmp_path / "home" / "v" / name, moving_square(12, seed=i), fps=25)
    (tmp_path / "home" / "l.txt").write_text("\n".join(names))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_what_is_no_path_below_a_home_stays_as_it_is(home):
    assert expanded("~/a") == str(home / "a")
    assert expanded(["~/a", "random"]) == [str(home / "a"), "random"]
    for same in (None, "hf://owner/name", "torchvision:DEFAULT", "a~b", "./~", "~nobody-of-this-name/x"):
        assert expanded(same) == same


def test_the_decorator_changes_the_named_arguments_alone(home):
    @takes_paths("a", "rest")
    def called(a, b, *rest):
        """Documented."""
        return a, b, rest

    assert called("~/x", "~/y", "~/z") == (f"{home}/x", "~/y", (f"{home}/z",))
    assert called(b=1, a="~") == (str(home), 1, ())
    assert called.__doc__ == "Documented."
    assert list(inspect.signature(called).parameters) == ["a", "b", "rest"]
    with pytest.raises(TypeError, match="called"):
        called()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_path_of_a_recipe_is_written_out_whole(home, kind):
    schema = KINDS[kind]
    paths = [path for path in leaf_paths(schema) if marks(schema, path).get("is_path")]
    if kind != "pretrain":
        paths = [path for path in paths if "out_of_domain" not in path]
    lists = [path for path in paths if path.endswith("list")]
    words = [f"{path}=~/x" for path in paths] + [f"{path.removesuffix('list')}name=list" for path in lists]
    if any(path.startswith("online.tracking.") for path in paths):
        words.append("online.tracking.every_epochs=1")
    resolved = load_recipe({"kind": kind}, words, allow_missing=True).resolved
    assert len(paths) >= 3
    for path in paths:
        value = resolved
        for key in path.split("."):
            value = value[key]
        assert value == str(home / "x"), path
    relative = load_recipe({"kind": kind}, ["data.root=../v"], allow_missing=True).resolved
    assert relative["data"]["root"] == str(home.parent / "v")
    assert load_recipe({"kind": kind}, allow_missing=True).resolved["data"]["root"] == "???"


DOORS = {
    "diff": lambda: ssvid.diff("~/none", "~/none"),
    "report": lambda: ssvid.report("~/none"),
    "audit": lambda: ssvid.audit(checkpoint="~/none"),
    "embed videos": lambda: ssvid.embed("~/none", backbone="random", backbone_name="tiny3d", out="f.npz"),
    "embed backbone": lambda: ssvid.embed("~/v", backbone="~/none", out="f.npz"),
    "probe backbone": lambda: ssvid.probe("probe/folder", "data.root=~/v", backbone="~/none", show_progress=False),
    "probe from": lambda: ssvid.probe(from_results="~/none"),
    "finetune backbone": lambda: ssvid.finetune("finetune/folder", "data.root=~/v", backbone=["~/none"]),
    "retrieve backbone": lambda: ssvid.retrieve("retrieve/folder", "data.root=~/v", backbone="~/none"),
    "pretrain root": lambda: ssvid.pretrain("pretrain/speediness_tiny", "data.root=~/none", show_progress=False),
    "pretrain init": lambda: ssvid.pretrain("pretrain/speediness_tiny", "data.root=~/v", "init_from=~/none"),
    "load_backbone": lambda: load_backbone("~/none"),
    "read_source": lambda: read_source("~/none"),
    "initialize": lambda: initialize(ssvid.create_backbone("tiny3d"), "~/none"),
    "export": lambda: export("~/none", "out"),
    "list_videos": lambda: list_videos("folder", "~/none"),
    "list_videos list": lambda: list_videos("list", "~/v", "~/none"),
    "build_manifest": lambda: build_manifest("~/none", [Entry("a.mp4")]),
    "Manifest.load": lambda: Manifest.load("~/none"),
    "find_recipe": lambda: find_recipe("~/none.yaml"),
    "show": lambda: show("~/none.yaml"),
}


@pytest.mark.parametrize("door", sorted(DOORS))
def test_no_door_looks_for_a_folder_of_the_name_tilde(home, door):
    with pytest.raises(SsvidError) as caught:
        DOORS[door]()
    assert f"{home}/none" in str(caught.value)
    assert not list((home.parent / "elsewhere").glob("~*"))


def test_the_cache_may_be_below_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("SSVID_CACHE", "~/cache")
    assert cache_folder() == home / "cache"


def test_data_index_and_its_list(home):
    assert main(["data", "index", "~/v", "--workers", "1"]) == 0
    assert (
        main(["data", "index", "~/v", "--workers", "1", "--reader", "list", "--list", "~/l.txt", "-o", "~/t.csv"]) == 0
    )
    assert len(Manifest.load("~/v/manifest.csv")) == len(Manifest.load("~/t.csv", "~/v")) == 4
    assert not list((home.parent / "elsewhere").iterdir())
