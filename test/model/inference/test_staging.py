# SPDX-License-Identifier: Apache-2.0
"""One buffer for many tensors: each keeps its own place, and nothing moves before it is sent."""

import pytest
import torch

from gr00t_model.inference.staging import ALIGNMENT, Staging

FIELDS = {
    "pixels": ((2, 3, 5, 7), torch.uint8),
    "noise": ((1, 6, 3), torch.float32),
    "mask": ((1, 5), torch.bool),
    "index": ((3,), torch.int64),
    "state": ((1, 2), torch.bfloat16),
}


def values():
    generator = torch.Generator().manual_seed(0)
    return {
        "pixels": torch.randint(0, 256, (2, 3, 5, 7), generator=generator, dtype=torch.uint8),
        "noise": torch.randn(1, 6, 3, generator=generator),
        "mask": torch.tensor([[True, False, True, True, False]]),
        "index": torch.tensor([5, 2**40, -1]),
        "state": torch.tensor([[0.5, -2.0]]),
    }


def test_every_field_arrives_and_none_overwrites_another():
    staging = Staging(FIELDS, "cpu")
    staging.fill(values())
    staging.upload()
    for name, value in values().items():
        assert staging.device[name].dtype == FIELDS[name][1]
        assert torch.equal(staging.device[name], value.to(FIELDS[name][1])), name


def test_addresses_are_aligned_and_stay():
    staging = Staging(FIELDS, "cpu")
    before = {name: field.data_ptr() for name, field in staging.device.items()}
    first = min(before.values())
    assert all((address - first) % ALIGNMENT == 0 for address in before.values())
    assert len(set(before.values())) == len(FIELDS)
    staging.fill(values())
    staging.upload()
    assert before == {name: field.data_ptr() for name, field in staging.device.items()}


def test_the_device_sees_nothing_before_the_upload_and_the_host_nothing_before_the_download():
    staging = Staging(FIELDS, "cpu")
    staging.fill(values())
    assert not staging.device["noise"].any()
    staging.upload()
    staging.device["noise"].fill_(3)
    assert torch.equal(staging.host["noise"], values()["noise"])
    staging.download()
    assert (staging.host["noise"] == 3).all()


def test_a_misshaped_value_is_refused_instead_of_broadcast():
    staging = Staging(FIELDS, "cpu")
    with pytest.raises(ValueError, match=r"noise has shape \[1, 1, 3\], expected \[1, 6, 3\]"):
        staging.fill({"noise": torch.ones(1, 1, 3)})
