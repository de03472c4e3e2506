"""torch.hub: every registered network has an entry point, and the listed dependencies are enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from ssvid.backbones import initialize_backbone, list_backbones
from tests.weights.test_checkpoints import content_of

ROOT = Path(__file__).resolve().parents[1]
# What ssvid as a whole needs and the backbones do not: with them absent, ``dependencies`` in hubconf.py must be enough.
ABSENT = ["omegaconf", "pytorch_lightning", "torchmetrics", "av", "decord", "torchcodec", "wandb", "rich", "yaml"]


def test_torch_hub_loads_each_network_and_our_weights(tmp_path: Path) -> None:
    source = initialize_backbone("tiny3d", {"width": 2}, seed=3).eval()
    torch.save(content_of(source), tmp_path / "last.ckpt")
    torch.save(dict(source.state_dict()), tmp_path / "theirs.pth")
    code = f"""
import sys
root = {str(ROOT)!r}
sys.path = [entry for entry in sys.path if entry not in ("", root)]  # as where ssvid is not installed
for name in {ABSENT!r}: sys.modules[name] = None
import torch
for name, options in (("load", dict(path={str(tmp_path / "last.ckpt")!r})),
                      ("tiny3d", dict(width=2, pretrained={str(tmp_path / "theirs.pth")!r})),
                      ("tiny3d", dict(width=2, seed=3))):
    network = torch.hub.load(root, name, source="local", **options)
    assert sys.modules[type(network).__module__].__file__.startswith(root)
    assert not network.training
    torch.save(network(torch.ones(1, 3, 8, 32, 32)), {str(tmp_path)!r} + "/" + name + str(len(options)) + ".pt")
sys.path.insert(0, root)
import hubconf
print(*sorted(n for n, v in vars(hubconf).items() if callable(v) and not n.startswith("_")))
assert "pretrained: torchvision:NAME" in hubconf.tiny3d.__doc__
assert {str(ROOT)!r} in hubconf.__file__
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == sorted(["load", *list_backbones()])
    assert "24  stage1 6" in done.stdout, "the table of keys is printed"
    with torch.no_grad():
        expected = source(torch.ones(1, 3, 8, 32, 32))
    for file in tmp_path.glob("*.pt"):
        torch.testing.assert_close(torch.load(file, weights_only=True), expected)
    assert len(list(tmp_path.glob("*.pt"))) == 2, "tiny3d was asked for twice"
