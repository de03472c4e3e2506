"""Public files of video transformers: renamed, loaded strictly, written back; the networks of transformers as an oracle.

The oracles run where transformers is installed; nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssvid.backbones import Backbone, create_backbone, initialize_backbone
from ssvid.backbones.positions import sincos_3d
from ssvid.backbones.vit_keys import LAYOUTS, from_public, layout_of, to_public
from ssvid.errors import CheckpointError
from ssvid.weights.initializing import initialize

SMALL = {"variant": "tiny", "num_frames": 4, "size_px": 32, "patch_px": 8}  # 2 x 4 x 4 tokens


@pytest.fixture(scope="module")
def network() -> Backbone:
    """With biases that are not 0, but those of the keys, which VideoMAE does not have."""
    network = initialize_backbone("vit", SMALL, seed=3).eval()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if key.endswith(".bias"):
                parameter.normal_()
            if key.endswith("qkv.bias"):
                parameter[192:384] = 0
    return network


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(network: Backbone, layout: str) -> None:
    public = to_public(network.state_dict(), layout)
    assert layout_of(public) == layout
    assert same(from_public(public), network.state_dict())
    prefixed = from_public(
        {f"module.{key}": value for key, value in public.items()} | {"module.head.weight": torch.ones(2)}
    )
    assert same(
        prefixed, {f"module.{k}": v for k, v in network.state_dict().items()} | {"module.head.weight": torch.ones(2)}
    )


def test_keys_of_the_files_by_name(network: Backbone) -> None:
    state = network.state_dict()
    videomae = to_public(state, "videomae")
    assert torch.equal(videomae["blocks.7.attn.v_bias"], state["blocks.7.attn.qkv.bias"][384:])
    assert "blocks.7.attn.qkv.bias" not in videomae
    hugging = to_public(state, "hf_vjepa2")
    assert torch.equal(hugging["layer.2.attention.key.weight"], state["blocks.2.attn.qkv.weight"][192:384])
    assert torch.equal(hugging["embeddings.patch_embeddings.proj.weight"], state["patch_embed.proj.weight"])
    older = to_public(state, "hf_videomae")
    renamed = {key.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): v for key, v in older.items()}
    assert "encoder.layer.0.attention.attention.q_bias" in renamed
    assert same(from_public(renamed), state), "as transformers wrote them before version 5"


def save(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def test_a_file_of_videomae_loads_strictly(network: Backbone, tmp_path: Path) -> None:
    """Pretraining: the encoder under ``model``, with a decoder of the same block names beside it."""
    public = {f"encoder.{key}": value for key, value in to_public(network.state_dict(), "videomae").items()}
    beside = {
        "mask_token": torch.zeros(1, 1, 96),
        "encoder_to_decoder.weight": torch.zeros(96, 192),
        "decoder.blocks.0.attn.qkv.weight": torch.zeros(288, 96),
        "decoder.blocks.0.attn.q_bias": torch.zeros(96),
        "decoder.blocks.0.attn.v_bias": torch.zeros(96),
    }
    fresh = create_backbone("vit", **SMALL)
    report = initialize(fresh, save(tmp_path / "videomae.pth", {"model": public | beside, "epoch": 800}))
    assert report.fits
    assert len(report.matched) == len(network.state_dict())
    assert "renamed its keys from layout videomae" in report.undone
    assert same(fresh.state_dict(), network.state_dict())


def test_a_fine_tuned_file_of_videomae_needs_a_network_without_the_last_norm(network: Backbone, tmp_path: Path) -> None:
    public = {k: v for k, v in to_public(network.state_dict(), "videomae").items() if not k.startswith("norm.")}
    heads = {"fc_norm.weight": torch.ones(192), "fc_norm.bias": torch.zeros(192), "head.weight": torch.ones(5, 192)}
    path = save(tmp_path / "tuned.pth", {"module": public | heads})
    fresh = create_backbone("vit", **SMALL, final_norm=False)
    report = initialize(fresh, path)
    assert report.fits
    assert set(report.heads) == set(heads)
    with pytest.raises(CheckpointError, match=r"2 missing.*norm\.weight"):
        initialize(create_backbone("vit", **SMALL), path)


def test_a_file_of_vjepa_is_told_which_encoder_and_its_table_is_compared(network: Backbone, tmp_path: Path) -> None:
    wrapped = {f"module.backbone.{key}": value for key, value in network.state_dict().items()}
    table = sincos_3d((2, 4, 4), 192).flatten(1).T[None]
    encoder = wrapped | {"module.backbone.pos_embed": table}
    teacher = {key: value + 1 for key, value in wrapped.items()} | {"module.backbone.pos_embed": table}
    path = save(tmp_path / "vjepa.pth", {"encoder": encoder, "target_encoder": teacher, "epoch": 3})
    fresh = create_backbone("vit", **SMALL)
    with pytest.raises(CheckpointError, match="holds the network 2 times"):
        initialize(fresh, path)
    report = initialize(fresh, path, which="target_encoder")
    assert report.fits
    assert any("pos_embed, which is computed" in words for words in report.undone)
    assert torch.equal(fresh.state_dict()["norm.bias"], network.state_dict()["norm.bias"] + 1)
    with pytest.raises(CheckpointError, match=r"32 tokens that is not the one that sincos gives for 8 frames of 32 px"):
        initialize(create_backbone("vit", **(SMALL | {"num_frames": 8})), path, which="encoder")
    rope = create_backbone("vit", **SMALL, positions="rope_tiled")
    assert initialize(rope, path, which="encoder").fits, "rotary networks do not use the table that their files carry"


def test_what_is_missing_or_of_another_size_is_refused(network: Backbone, tmp_path: Path) -> None:
    public = to_public(network.state_dict(), "hf_vjepa2")
    lacking = {key: value for key, value in public.items() if key != "layer.4.attention.key.weight"}
    with pytest.raises(CheckpointError, match=r"of blocks\.4\.attn\.qkv\.weight the file holds only queries, values"):
        initialize(create_backbone("vit", **SMALL), save(tmp_path / "lacking.pth", lacking))
    lacking = {key: value for key, value in public.items() if not key.startswith("layer.4.mlp.fc1")}
    fresh = create_backbone("vit", **SMALL)
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"2 missing.*blocks\.4\.mlp\.fc1"):
        initialize(fresh, save(tmp_path / "short.pth", lacking))
    assert same(fresh.state_dict(), before), "nothing was loaded"
    with pytest.raises(CheckpointError, match="mismatched"):
        initialize(create_backbone("vit", **(SMALL | {"patch_px": 16})), save(tmp_path / "patch.pth", public))


def test_what_a_layout_cannot_hold_is_refused(network: Backbone) -> None:
    with pytest.raises(CheckpointError, match=r"layout videomae has no place for positions\.time, positions\.space"):
        to_public(create_backbone("vit", **SMALL, positions="learned").state_dict(), "videomae")
    with pytest.raises(CheckpointError, match=r"layout \('timm'\) must be one of vjepa, videomae"):
        to_public(network.state_dict(), "timm")


def stirred(oracle: Any) -> Any:
    """With weights so large that attention is far from even, and with biases: every one of them shows in the output."""
    torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in oracle.named_parameters():
            parameter.normal_(mean=float("norm" in key and key.endswith("weight")), std=0.1)
    return oracle.eval()


def sequence(map_BCTHW: Tensor) -> Tensor:
    return map_BCTHW.flatten(2).transpose(1, 2)


def test_the_network_of_vjepa2_in_transformers_gives_the_same_tokens() -> None:
    """All of them, and with most of them dropped before the first block."""
    transformers = pytest.importorskip("transformers")
    config = transformers.VJEPA2Config(
        patch_size=8, crop_size=32, frames_per_clip=4, hidden_size=192, num_attention_heads=3, num_hidden_layers=12,
        pred_hidden_size=32, pred_num_attention_heads=2, pred_num_hidden_layers=1,
    )  # fmt: skip
    oracle = stirred(transformers.VJEPA2Model(config))
    network = create_backbone("vit", **SMALL, positions="rope_tiled").eval()
    state = {key.removeprefix("encoder."): v for key, v in from_public(oracle.state_dict()).items()}
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    clip = torch.rand(2, 3, 4, 32, 32)
    places = torch.tensor([[0, 9, 20, 31], [3, 4, 5, 30]])
    keep = torch.zeros(2, 32, dtype=torch.bool).scatter(1, places, True)
    with torch.no_grad():
        x = network.normalize(clip).transpose(1, 2)
        want = oracle(x, skip_predictor=True).last_hidden_state
        torch.testing.assert_close(sequence(network(clip)), want, atol=1e-4, rtol=1e-4)
        network.rope_layout = "interleaved"  # type: ignore[assignment]
        assert (sequence(network(clip)) - want).abs().max() > 0.1, "the layout matters"
        network.rope_layout = "tiled"  # type: ignore[assignment]
        tokens = oracle.encoder.embeddings(x).gather(1, places[..., None].expand(-1, -1, 192))
        for layer in oracle.encoder.layer:
            tokens = layer(tokens, places)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        got = sequence(network(clip, keep_BN=keep))[keep].reshape(2, 4, 192)
        torch.testing.assert_close(got, oracle.encoder.layernorm(tokens), atol=1e-4, rtol=1e-4)


def test_the_network_of_videomae_in_transformers_gives_the_same_tokens() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
        intermediate_size=768, use_mean_pooling=False, layer_norm_eps=1e-6,
    )  # fmt: skip
    oracle = stirred(transformers.VideoMAEModel(config))
    network = create_backbone("vit", **SMALL, positions="sincos_flat").eval()
    network.load_state_dict(from_public(oracle.state_dict()))
    clip = torch.rand(2, 3, 4, 32, 32)
    keep = torch.zeros(2, 32, dtype=torch.bool)
    keep[0, [0, 9, 20, 31]] = keep[1, [3, 4, 5, 30]] = True
    with torch.no_grad():
        x = network.normalize(clip).transpose(1, 2)
        torch.testing.assert_close(sequence(network(clip)), oracle(x).last_hidden_state, atol=1e-4, rtol=1e-4)
        kept = oracle(x, bool_masked_pos=~keep).last_hidden_state
        got = sequence(network(clip, keep_BN=keep))[keep].reshape(2, 4, 192)
        torch.testing.assert_close(got, kept, atol=1e-4, rtol=1e-4)


def test_the_network_of_timesformer_in_transformers_gives_the_same_patches() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.TimesformerConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
        intermediate_size=768, layer_norm_eps=1e-6, drop_path_rate=0,
    )  # fmt: skip
    oracle = stirred(transformers.TimesformerModel(config))
    network = create_backbone("timesformer", **SMALL).eval()
    names = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj", "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed", "embeddings.time_embeddings": "time_embed",
        "encoder.layer": "blocks", "temporal_attention.attention.qkv": "temporal_attn.qkv",
        "temporal_attention.output.dense": "temporal_attn.proj", "temporal_dense": "temporal_fc",
        "temporal_layernorm": "temporal_norm1", "attention.attention.qkv": "attn.qkv",
        "attention.output.dense": "attn.proj", "layernorm_before": "norm1", "layernorm_after": "norm2",
        "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2", "layernorm": "norm",
    }  # fmt: skip
    state = {}
    for key, value in oracle.state_dict().items():
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        state[key] = value
    network.load_state_dict(state)
    clip = torch.rand(2, 3, 4, 32, 32)
    with torch.no_grad():
        want = oracle(network.normalize(clip).transpose(1, 2)).last_hidden_state[:, 1:]  # without the class token
        got = network(clip).permute(0, 3, 4, 2, 1).flatten(1, 3)  # time fastest
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
