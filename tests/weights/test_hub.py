"""The Hub, offline: what would be sent, what is taken from a prepared cache, and what is said without extra or network."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ssvid
from ssvid.backbones import initialize_backbone
from ssvid.errors import CheckpointError
from ssvid.exports import export, load_backbone
from ssvid.weights.hub import parse_address
from tests.weights.test_checkpoints import content_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    torch.save(content_of(initialize_backbone("tiny3d", {"width": 2}, seed=2)), folder / "last.ckpt")
    export(folder / "last.ckpt", folder / "mine", program=False)
    return folder / "mine"


@pytest.fixture
def client() -> Any:
    pytest.importorskip("huggingface_hub.hub_mixin")
    return pytest.importorskip("huggingface_hub")


@pytest.fixture
def cache(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the client, and no network."""
    monkeypatch.setattr(client.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(client.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache: Path, exported: Path, repo: str = "models--someone--mine") -> None:
    """What the client leaves in its cache after a download."""
    shutil.copytree(exported, cache / repo / "snapshots" / COMMIT)
    (cache / repo / "refs").mkdir()
    (cache / repo / "refs" / "main").write_text(COMMIT)


class FakeApi:
    """Keeps what it is asked to do."""

    calls: tuple[Any, ...] = ()

    def __init__(self, token: str | None = None) -> None:
        FakeApi.calls = (("token", token),)

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        FakeApi.calls += (("create", repo_id, options),)
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        sent = {path.name: path.read_bytes() for path in sorted(Path(options["folder_path"]).iterdir())}
        FakeApi.calls += (("upload", sent, options),)
        return SimpleNamespace(oid=COMMIT)


def test_only_the_files_of_the_export_are_sent(
    exported: Path, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.hub_mixin, "HfApi", FakeApi)
    folder = tmp_path / "mine"
    shutil.copytree(exported, folder)
    (folder / ".env").write_text("HF_TOKEN=secret")
    (folder / "notes.txt").write_text("precious")
    address = ssvid.push_to_hub(folder, "someone/mine", token="t")
    assert address == f"hf://someone/mine@{COMMIT}"
    token, create, upload = FakeApi.calls
    assert token == ("token", "t")
    assert create == ("create", "someone/mine", {"private": True, "exist_ok": True})
    assert list(upload[1]) == ["README.md", "backbone.safetensors", "config.json", "content_ids.json"]
    assert all(content == (exported / name).read_bytes() for name, content in upload[1].items())
    assert upload[2]["commit_message"].startswith("tiny3d, weights ")
    sent = b"".join(upload[1].values())
    assert b"/home/somebody" not in sent
    assert str(exported.parent).encode() not in sent


def test_what_is_no_whole_export_is_not_sent(
    exported: Path, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.hub_mixin, "HfApi", FakeApi)
    FakeApi.calls = ()
    with pytest.raises(CheckpointError, match=r"is not an exported folder.*ssvid export runs/mine"):
        ssvid.push_to_hub(tmp_path, "someone/mine")
    shutil.copytree(exported, tmp_path / "mine")
    (tmp_path / "mine" / "backbone.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        ssvid.push_to_hub(tmp_path / "mine", "someone/mine")
    assert FakeApi.calls == ()


def test_the_hubs_refusal_is_told(exported: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(FakeApi):
        def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
            raise OSError("you are not logged in")

    monkeypatch.setattr(client.hub_mixin, "HfApi", Refusing)
    with pytest.raises(CheckpointError, match=r"cannot be uploaded to someone/mine .*not logged in.*hf auth login"):
        ssvid.push_to_hub(exported, "someone/mine")


def test_a_backbone_from_the_cache_is_that_of_the_export(exported: Path, cache: Path) -> None:
    put(cache, exported)
    expected = load_backbone(exported)
    clip = torch.rand(1, 3, 8, 32, 32)
    for backbone in (
        load_backbone("hf://someone/mine"),
        load_backbone(f"hf://someone/mine@{COMMIT}"),
        ssvid.from_pretrained("someone/mine", revision="main"),
    ):
        assert torch.equal(backbone(clip), expected(clip))
        assert backbone.provenance == expected.provenance
    fine = ssvid.from_pretrained("someone/mine", options={"stride_time": 1})
    assert fine.info.options["stride_time"] == 1
    report = ssvid.exports.initialize(initialize_backbone("tiny3d", {"width": 2}), "hf://someone/mine")
    assert report.label == f"hf://someone/mine@{COMMIT}", "which commit it was stays on record"


def test_without_network_and_cache_one_paragraph(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hf://someone/other cannot be fetched .*Check the name and the network"):
        load_backbone("hf://someone/other")


def test_without_the_extra_one_paragraph(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: load_backbone("hf://someone/mine"), lambda: ssvid.push_to_hub(exported, "someone/mine")):
        with pytest.raises(CheckpointError, match=r"huggingface_hub is not installed.*pip install 'ssvid\[hub\]'"):
            call()


@pytest.mark.parametrize("address", ["hf://mine", "hf://a/b/c", "hf://a/b@", "hf://"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(CheckpointError, match="must read hf://owner/name"):
        parse_address(address)
