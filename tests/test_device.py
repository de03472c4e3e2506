"""Names of devices."""

import pytest
import torch

from ssvid.errors import SsvidError
from ssvid.ranks import cores_for_network, joined_processes, resolve_device, threads_kept


@pytest.fixture(params=[0, 2])
def num_gpus(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


def test_what_is_there(num_gpus):
    assert resolve_device("auto") == ("cuda" if num_gpus else "cpu")
    assert resolve_device("cpu") == "cpu"
    if num_gpus:
        assert resolve_device("cuda") == "cuda"
        assert resolve_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:x", "cpu:1", "", "cuda:-1"])
def test_unknown_names(device):
    with pytest.raises(SsvidError, match=r"device \(.*\) is unknown.*Known: auto, cpu, cuda, cuda:0, mps"):
        resolve_device(device)


def test_what_is_not_there(num_gpus, monkeypatch):
    with pytest.raises(
        SsvidError, match=rf"device \(cuda:2\) .* sees {num_gpus or 'none'}\. Take --device auto or cpu"
    ):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SsvidError, match="must be a GPU of Apple"):
        resolve_device("mps")


def test_alone_no_device_is_looked_at(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined_processes("cuda:7") as (device, is_first):
        assert (device, is_first) == ("cuda:7", True)


def test_threads_are_given_back_whatever_happens():
    before = torch.get_num_threads()
    with cores_for_network("cpu", workers=1000):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before

    @threads_kept()
    def fail():
        torch.set_num_threads(before + 1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert torch.get_num_threads() == before
