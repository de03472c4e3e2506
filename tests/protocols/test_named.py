"""Named protocols: each can be run as it stands, none changes unnoticed, and the page says what they say."""

import hashlib
import json
from pathlib import Path

import pytest

from ssvid.errors import RecipeError
from ssvid.protocols.metrics import title_of
from ssvid.protocols.named import PROTOCOLS, named_protocol, protocol_names
from ssvid.protocols.pages import knob_table, page, page_of_all
from ssvid.recipe.check import to_plain
from ssvid.recipe.load import load_recipe
from ssvid.recipe.schema import KINDS
from ssvid.settings import as_older, without_speed

# A published version never changes: who needs another setting adds a version, and its line here.
FIXED = {
    "ucf101-linear@1": "329a5ad94e2b",
    "ucf101-knn@1": "898b94c50b3c",
    "ucf101-retrieval@1": "0844cafbd845",
    "ucf101-finetune@1": "9b6883813472",
    "hmdb51-linear@1": "43cae4a92c7b",
    "hmdb51-knn@1": "0c00b861dc00",
    "hmdb51-retrieval@1": "1f6c08b76cff",
    "hmdb51-finetune@1": "ca6bf14533d0",
    "folder-linear@1": "bb40eaca0648",
    "folder-knn@1": "69051cf38156",
    "folder-retrieval@1": "c76494d2a512",
    "folder-finetune@1": "3eb1bcc7db61",
    "vcop-retrieval@1": "fe5761fe8a24",
    "vcop-finetune@1": "d0a4b2c4bf84",
    "coclr-retrieval@1": "598dc564bc38",
    "coclr-linear@1": "010caed5b37c",
    "coclr-finetune@1": "0aff9568420e",
    "speednet-finetune@1": "05ffec1c10bb",
    "shuffle-and-learn-finetune@1": "8599d68bc143",
    "svt-knn@1": "d17b353d1eca",
    "track@1": "7ab66db62f17",
    "davis2017-timecycle@1": "d4ef12faa157",
    "davis2017-crw@1": "19c0af9a8336",
    "davis2017-dino@1": "8dbf2fef1af9",
    "davis2017-cropmae@1": "0083d8bc90e8",
    "davis2017-rvm@1": "fc9885c5f746",
    "davis2017-dinov3@1": "52cc0a6457e4",
    "jhmdb-timecycle@1": "a1f464a64346",
    "jhmdb-crw@1": "e35fc14570d0",
    "jhmdb-cropmae@1": "2e2961fab0dc",
    "vip-crw@1": "2802c56f02cf",
    "vip-cropmae@1": "15ace6606a2d",
    "tapvid-davis@1": "e5f8e0b209cc",
}


def digest(protocol) -> str:
    """Of all that the number depends on: defaults of settings that the protocol does not name count as well."""
    resolved = load_recipe(protocol.id, ["data.root=x"]).resolved
    kept, settings = without_speed(KINDS[protocol.kind], resolved), to_plain(protocol.settings)
    if protocol.kind == "finetune":  # in the names of the version that the digests are of
        kept, settings = as_older(kept), as_older(settings)
    groups = {key: kept[key] for key in ("features", "probe", "retrieval", "finetune", "track") if key in kept}
    told = [protocol.kind, list(protocol.metrics), settings, groups]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def test_no_version_changes():
    assert {p.id: digest(p) for p in PROTOCOLS} == FIXED


@pytest.mark.parametrize("name", protocol_names())
def test_each_is_a_recipe_by_itself(name):
    protocol = named_protocol(name)
    loaded = load_recipe(name, ["data.root=somewhere"], kind=protocol.kind)
    assert (loaded.protocol, loaded.changed) == (name, {})
    assert loaded.resolved["protocol"] == name
    for path, value in protocol.leaves().items():
        found = loaded.resolved
        for key in path.split("."):
            found = found[key]
        assert found == to_plain(value), path


def test_the_newest_version_is_meant_where_none_is_said():
    assert named_protocol("ucf101-linear").version == max(p.version for p in PROTOCOLS if p.name == "ucf101-linear")
    assert load_recipe("folder-linear", ["data.root=x"]).resolved["protocol"] == "folder-linear@1"


def test_what_a_recipe_says_otherwise_is_told():
    loaded = load_recipe(
        {"kind": "probe", "protocol": "ucf101-linear@1", "data": {"root": "x"}, "features": {"num_clips": 3}},
        ["probe.holdout_fraction=0.25"],
    )
    assert loaded.changed == {"features.num_clips": (10, 3), "probe.holdout_fraction": (0.2, 0.25)}
    assert loaded.recipe.features.num_clips == 3
    assert loaded.origins["features.crop_px"] == "protocol"


def test_mistakes():
    with pytest.raises(RecipeError, match=r"unknown protocol 'ucf101-linaer@1'. Did you mean"):
        load_recipe({"kind": "probe", "protocol": "ucf101-linaer@1", "data": {"root": "x"}})
    with pytest.raises(RecipeError, match=r"ucf101-linear has no version '7'. Known: ucf101-linear@1"):
        named_protocol("ucf101-linear@7")
    with pytest.raises(
        RecipeError, match=r"protocol \(vcop-retrieval@1\) is one of kind 'retrieve'. Run it with: ssvid retrieve"
    ):
        load_recipe({"kind": "probe", "protocol": "vcop-retrieval@1", "data": {"root": "x"}})


@pytest.mark.parametrize("name", ["vcop-retrieval@1", "ucf101-knn@1"])
def test_a_page_says_everything(name):
    protocol = named_protocol(name)
    text = page(protocol)
    assert all(f"{path}=" in text for path in protocol.leaves())
    flat = " ".join(text.split())
    for said in (
        protocol.reproduces,
        protocol.source,
        *protocol.differs,
        *protocol.defects,
        *protocol.defects.values(),
    ):
        assert " ".join(said.split()) in flat
    assert ("not measured here" in text) == bool(protocol.published)


def test_those_of_papers_say_their_source_and_ours_say_none():
    for protocol in PROTOCOLS:
        assert bool(protocol.reproduces) == bool(protocol.source) == bool(protocol.differs), protocol.id
        assert all(row.source for row in protocol.published)


def test_the_page_of_the_documentation_is_up_to_date():
    path = Path(__file__).parents[2] / "docs" / "protocols.md"
    assert path.read_text() == page_of_all(), "write it anew: ssvid protocols --markdown > docs/protocols.md"


@pytest.mark.parametrize("start", ["track,davis2017", "jhmdb,vip,tapvid"])
def test_the_page_on_tracking_holds_the_settings_side_by_side(start):
    text = (Path(__file__).resolve().parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")
    assert knob_table(start) in text


def test_every_protocol_of_tracking_says_all_settings():
    """Two of them can be held against each other line by line, and a default that changes later changes none."""
    from ssvid.features.propagation_protocol import PropagationProtocol

    free = {"untrained_stage", "precision", "max_mb"}
    for protocol in (p for p in PROTOCOLS if p.kind == "track"):
        missing = PropagationProtocol.__dataclass_fields__.keys() - protocol.settings["track"].keys() - free
        assert not missing, protocol.id


def test_published_metrics_of_tracking_have_titles_of_their_own():
    metrics = {m for p in PROTOCOLS if p.kind == "track" for row in p.published for m in row.values}
    assert {"davis_jf", "miou", "pck@0.1"} <= metrics
    assert [metric for metric in sorted(metrics) if title_of(metric) == metric] == []
    assert (title_of("davis_j_recall"), title_of("davis_f_decay")) == ("J recall", "F decay")
