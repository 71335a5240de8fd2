"""Devices by name and in words."""

import pytest
import torch

from replicate import devices
from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError


@pytest.mark.parametrize(("gpu", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_gpu_where_there_is_one(gpu, expected, monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: gpu)
    assert choose_device("auto") == torch.device(expected)


def test_the_cpu_can_always_be_asked_for(monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "quantum"])
def test_unknown_and_absent_devices_are_refused(name):
    with pytest.raises(ReplicateError, match=f"device: got {name!r}, expected auto, cpu or an available GPU"):
        choose_device(name)


def test_the_cpu_is_described_by_processor_and_threads(monkeypatch):
    monkeypatch.setattr(devices, "_processor", lambda: "Some Processor 3000")
    monkeypatch.setattr(devices.torch, "get_num_threads", lambda: 2)
    assert describe_device("cpu") == describe_device(torch.device("cpu")) == "Some Processor 3000, 2 threads"


def test_the_processor_has_a_name_even_where_linux_does_not_tell(tmp_path, monkeypatch):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Some Processor: 3000\nmodel name\t: another\n")
    monkeypatch.setattr(devices, "Path", lambda _: told)
    assert devices._processor() == "Some Processor: 3000"
    told.write_text("processor\t: 0\n")
    monkeypatch.setattr(devices.platform, "machine", lambda: "aarch64")
    assert devices._processor() == "aarch64"
    told.unlink()
    monkeypatch.setattr(devices.platform, "processor", lambda: "")
    assert devices._processor() == "aarch64"


def test_a_gpu_is_described_by_its_name(monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert describe_device("cuda") == "NVIDIA H200"
