"""What people type for our words because other programs call them so, answered with ours."""

import dataclasses
import shlex

import pytest

from ssvid.cli import build_parser
from ssvid.cli.parser import UsageError, parse
from ssvid.errors import RecipeError
from ssvid.recipe import synonyms as words
from ssvid.recipe.check import leaf_paths
from ssvid.recipe.load import load_recipe
from ssvid.recipe.schema import KINDS

PRETRAIN = {"kind": "pretrain", "data": {"root": "v"}, "backbone": {"name": "tiny3d"}, "task": {"name": "speediness"}}
PROBE = {"kind": "probe", "data": {"root": "v"}}
FINETUNE = {"kind": "finetune", "data": {"root": "v"}}


def told(command):
    with pytest.raises(UsageError) as caught:
        parse(build_parser(), shlex.split(command))
    return str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "override", "meant"),
    [
        (PRETRAIN, "optim.lr=0.1", "optim.base_lr"),
        (PRETRAIN, "lr=0.1", "optim.base_lr"),
        (PRETRAIN, "batch_size=8", "loader.global_batch"),
        (PRETRAIN, "loader.batch_size=8", "loader.global_batch"),
        (PRETRAIN, "trainer.gpus=2", "trainer.devices"),
        (PRETRAIN, "trainer.max_epochs=2", "optim.epochs"),
        (PRETRAIN, "loader.num_workers=2", "loader.workers_per_device"),
        (PRETRAIN, "task.clip_len=8", "task.options.num_frames"),
        (PRETRAIN, "optim.wd=0", "optim.weight_decay"),
        (PRETRAIN, "pretrained=x", "init_from"),
        (FINETUNE, "finetune.lr=0.1", "optim.base_lr"),
        (FINETUNE, "batch_size=8", "finetune.batch_size"),
        (FINETUNE, "epochs=8", "optim.epochs"),
        (PROBE, "num_workers=8", "features.workers"),
        (PROBE, "features.batch=8", "features.batch_size"),
        (PROBE, "dataset=d", "data.root"),
    ],
)
def test_a_setting_under_another_name_is_answered_with_ours(recipe, override, meant):
    with pytest.raises(RecipeError, match=rf"Did you mean '{meant}'\?"):
        load_recipe(recipe, [override])


@pytest.mark.parametrize(
    ("override", "meant"), [("data=videos", "data.root=videos"), ("backbone=r3d_18", "backbone.name=r3d_18")]
)
def test_a_group_given_a_value_is_answered_with_its_key(override, meant):
    with pytest.raises(RecipeError, match=rf"must be a group of keys: .* Did you mean {meant}\?"):
        load_recipe(PRETRAIN, [override])


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("pretrain r --epochs 1", "optim.epochs=1?"),
        ("pretrain r --epochs=1", "optim.epochs=1?"),
        ("pretrain r --data D", "data.root=D?"),
        ("pretrain r --lr 0.1 --resume", "optim.base_lr=0.1?"),
        ("pretrain r --out x", "'--run-dir'?"),
        ("pretrain r --device cpu", "trainer.accelerator=cpu?"),
        ("pretrain r --extend 5", "--resume optim.epochs=TOTAL?"),
        ("pretrain r --checkpoint x", "init_from=x?"),
        ("probe r --checkpoint x", "'--backbone'?"),
        ("probe r --run-dir x", "'--out'?"),
        ("finetune r --device cpu", "trainer.accelerator=cpu?"),
        ("finetune r --epochs 3", "optim.epochs=3?"),
        ("retrieve r --data D", "data.root=D?"),
        ("export a --out b", "OUT, which has no dashes: ssvid export CHECKPOINT OUT?"),
        ("embed v --backbone b --output f -o g", "'--out'?"),
        ("demo --output x", "'--out'?"),
        ("pretrain r --resme", "'--resume'?"),  # a typing error is none of them
    ],
)
def test_an_option_under_another_name_is_answered_with_ours(command, meant):
    assert f"Did you mean {meant}" in told(command)


@pytest.mark.parametrize(
    ("typed", "verb"),
    [
        ("train", "pretrain"),
        ("ls", "recipes"),
        ("help", "--help"),
        ("eval", "probe"),
        ("index", "data index"),
        ("prob", "probe"),
    ],
)
def test_a_verb_under_another_name_is_answered_with_ours(typed, verb):
    assert f"Did you mean '{verb}'?" in told(typed)


def test_what_is_answered_exists():
    known = {path for schema in KINDS.values() for path in leaf_paths(schema)}
    settings = {path for path in words._WORDS for path in (path, *words._ALSO.get(path, ()))}
    assert {path for path in settings if not path.startswith("task.options.")} <= known
    assert set(words._ALSO) <= set(words._WORDS) | set(words._OPTION_WORDS)
    for kind, groups in words._GROUPS.items():
        assert set(groups) <= {field.name for field in dataclasses.fields(KINDS[kind])}
    verbs = build_parser()._subparsers._group_actions[0].choices
    assert {verb.split()[0] for verb in words._VERBS} - {"--help"} <= set(verbs)
    meant = [
        word
        for table in (words._WORDS, words._OPTION_WORDS, words._VERBS)
        for line in table.values()
        for word in line.split()
    ]
    assert len(meant) > 200
    for table in (words._WORDS, words._OPTION_WORDS, words._VERBS):
        listed = [word for line in table.values() for word in line.split()]
        assert len(listed) == len(set(listed))
