"""Which split is scored, and what the list alone can tell: before a file is read."""

import pytest

from ssvid.data.config import DataConfig
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.evals.neighbors.knn import KNN
from ssvid.evals.neighbors.retrieval import Retrieval
from ssvid.features.protocol import ProbeProtocol, RetrievalProtocol
from ssvid.programs.scored_videos import check_listed, scored_rows, scored_split, split_note
from ssvid.protocols.named import PROTOCOLS
from ssvid.recipe.load import load_recipe


def row(split, label, number=0):
    path = f"{split}/{label or 'none'}/{number}.mp4"
    return VideoRow(path=path, num_frames=10, fps=25.0, height=8, width=8, label=label, split=split)


def manifest(*rows):
    return Manifest("/videos", tuple(rows))


TRAINED = [row("train", "a"), row("train", "b")]


def test_test_is_scored_and_val_where_test_has_no_labels():
    with_test = [*TRAINED, row("val", "a", 1), row("test", "b", 2)]
    without = [*TRAINED, row("val", "a", 1)]
    unlabeled = [*without, row("test", "", 3)]
    assert scored_split(with_test, DataConfig()) == "test"
    assert scored_split(without, DataConfig()) == scored_split(unlabeled, DataConfig()) == "val"
    assert [r.path for r in scored_rows(manifest(*unlabeled))[1]] == ["val/a/1.mp4"]
    assert split_note(manifest(*with_test), DataConfig()) == ""
    assert (
        split_note(manifest(*without), DataConfig()) == "scored on the split val, because no video of test has a label"
    )


@pytest.mark.parametrize("named", [{"test_split": "val"}, {"split": "val"}, {"test_split": "val", "split": "val"}])
def test_a_split_that_is_named_is_scored_by_either_name(named):
    videos = manifest(*TRAINED, row("val", "a", 1), row("test", "b", 2))
    train, test = scored_rows(videos, DataConfig(**named))
    assert ([r.split for r in train], [r.split for r in test]) == (["train", "train"], ["val"])
    assert split_note(videos, DataConfig(**named)) == "scored on the split val, as the recipe asks"


def test_a_split_that_cannot_be_scored_is_refused():
    with pytest.raises(
        RecipeError, match=r"data\.test_split \(train\) must not be the split that the probe is trained on"
    ):
        scored_split(TRAINED, DataConfig(split="train"))
    with pytest.raises(RecipeError, match=r"data\.split \(val\) and data\.test_split \(test\) both name"):
        scored_split(TRAINED, DataConfig(split="val", test_split="test"))
    with pytest.raises(DataError, match=r"splits train and dev; /videos has train: 2.*data\.test_split=val"):
        scored_rows(manifest(*TRAINED), DataConfig(test_split="dev"))


@pytest.fixture
def folder(tmp_path):
    """Files that nobody could read: what is told of them is told from their names."""

    def lay_out(**splits):
        for split, classes in splits.items():
            for label, count in classes.items():
                for number in range(count):
                    path = tmp_path / split / label / f"{number}.mp4"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(b"no video")
        return DataConfig(name="class_folder", root=str(tmp_path))

    return lay_out


def test_a_class_that_train_lacks_is_told_from_names(folder):
    data = folder(train={"a": 3, "b": 3}, test={"A": 3})
    with pytest.raises(DataError, match="class 'A' is in test and has no training video"):
        check_listed(data, {})


def test_too_many_neighbors_are_told_from_names(folder):
    data = folder(train={"a": 3, "b": 3}, test={"a": 3})
    with pytest.raises(RecipeError, match=r"probe\.knn_ks \(\[20\]\) must be at most the number of training videos, 6"):
        check_listed(data, {KNN(): ProbeProtocol(knn_ks=(20,))})
    with pytest.raises(RecipeError, match=r"retrieval\.ks .* must be at most the number of training videos, 6"):
        check_listed(data, {Retrieval(): RetrievalProtocol(ks=(1, 50))})
    check_listed(data, {KNN(): ProbeProtocol(knn_ks=(6,)), Retrieval(): RetrievalProtocol(ks=(1, 6))})


def test_a_missing_split_is_told_from_names(folder):
    data = folder(train={"a": 3, "b": 3})
    with pytest.raises(DataError, match="needs videos of the splits train and test"):
        check_listed(data, {})
    check_listed(folder(val={"a": 1}), {})  # now val is there, and is scored


def test_the_folder_protocols_read_a_folder_of_classes_and_no_other_place_is_a_change():
    mine = [p for p in PROTOCOLS if p.name.startswith("folder-")]
    assert len(mine) == 4
    for protocol in mine:
        plain = load_recipe(protocol.id, ["data.root=labeled"])
        assert (plain.recipe.data.name, plain.changed) == ("class_folder", {})
        listed = load_recipe(protocol.id, ["data.root=labeled", "data.name=list", "data.list=videos.csv"])
        assert (listed.recipe.data.name, listed.changed) == ("list", {})
