"""In-place writes stay in the process that writes: sealed memory and other processes do not change."""

import pytest
import torch
from torch import nn

import ray_zerocopy as rz
from models import Network, Pipeline


def add(module):
    module.head.weight.add_(1)


def copy(module):
    module.head.weight.copy_(torch.zeros(5, 8))


def through_data(module):
    module.head.weight.data[0] = 3.0


def optimiser(module):
    module.head.requires_grad_(True)
    step = torch.optim.SGD(module.head.parameters(), lr=1.0)
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    step.step()


def norm(module):
    module.train()
    with torch.no_grad():
        module(torch.randn(4, 3, 8, 8))


def numpy(module):
    module.head.weight.detach().numpy()[:] = 9


WRITES = [add, copy, through_data, optimiser, norm, numpy]


@pytest.mark.parametrize("write", WRITES)
def test_write_is_private(write):
    original = Network()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    wrapper = rz.ActorWrapper(original)
    one, two = wrapper.load(), wrapper.load()
    write(one)
    changed = [name for name, tensor in one.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed, "the write had an effect"
    for other in (two, wrapper.load()):
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    wrapper.verify()


def test_write_in_a_worker_does_not_reach_others():
    with rz.TaskWrapper(Pipeline(), workers=2) as wrapped:
        first = wrapped.first()
        # Both workers load. Each call waits until the other one runs as well.
        [call.result() for call in [wrapped.sleep.remote(1) for _ in range(2)]]
        assert wrapped.write(7.0) == 7.0
        answers = [call.result() for call in [wrapped.first_after.remote(1) for _ in range(2)]]
        # The worker that wrote keeps its own pages, like any state of its pipeline.
        assert len({pid for pid, _ in answers}) == 2 and sorted(value for _, value in answers) == sorted([first, 7.0])
        assert wrapped.load().first() == first
        wrapped.verify()


def test_growing_a_weight_is_refused():
    loaded = rz.ActorWrapper(nn.Linear(4, 4)).load()
    with pytest.raises(RuntimeError, match="resize"):
        loaded.weight.data.resize_(8, 8)
