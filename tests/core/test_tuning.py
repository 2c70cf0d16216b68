"""A tuning changes the weights of some modules, in a model of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from melo_cli.scope.core.tuning import Tuning


def model() -> nn.Module:
    drawn = torch.Generator().manual_seed(0)
    layers = nn.ModuleDict({"low": nn.Linear(6, 6), "high": nn.Linear(6, 4)})
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=drawn)
    return layers


def tuning(seed: int = 1) -> Tuning:
    drawn = torch.Generator().manual_seed(seed)
    return Tuning({"high": (torch.randn(2, 6, generator=drawn), torch.randn(4, 2, generator=drawn))})


def test_the_product_is_added_to_a_copy_which_shares_all_other_weights() -> None:
    plain, some = model(), tuning()
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    tuned = some.applied_to(plain)
    A, B = some.parts["high"]
    assert torch.equal(tuned.get_parameter("high.weight"), before["high.weight"] + B @ A)
    assert all(torch.equal(weight, before[name]) for name, weight in plain.state_dict().items())
    shared = [name for name, one in plain.named_parameters() if one is tuned.get_parameter(name)]
    assert shared == ["low.weight", "low.bias", "high.bias"]
    x = torch.ones(1, 6)
    assert torch.equal(tuned.get_submodule("low")(x), plain.get_submodule("low")(x))
    assert not torch.equal(tuned.get_submodule("high")(x), plain.get_submodule("high")(x))


def test_without_parts_the_model_is_the_same() -> None:
    plain = model()
    assert Tuning().applied_to(plain) is plain
    assert Tuning.from_arrays({"low.mean": torch.ones(1)}) == Tuning()


def test_arrays_bring_it_back_and_other_numbers_have_another_digest() -> None:
    some = tuning()
    again = Tuning.from_arrays({**some.to_arrays(), "sentence": torch.ones(1)})
    assert again.digest() == some.digest()
    assert torch.equal(
        again.applied_to(model()).get_parameter("high.weight"),
        some.applied_to(model()).get_parameter("high.weight"),
    )
    assert len({some.digest(), tuning(2).digest(), Tuning().digest()}) == 3


def test_a_pair_that_is_not_whole_is_refused() -> None:
    arrays = tuning().to_arrays()
    del arrays["tuning.high.B"]
    with pytest.raises(KeyError):
        Tuning.from_arrays(arrays)
