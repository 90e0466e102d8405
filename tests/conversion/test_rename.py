"""The rename engine names what fits, and tells of everything that does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lodestar.config import Problem
from lodestar.conversion.rename import Rule, rename

RULES = (
    Rule(r"^layer(\d+)\.", lambda match: f"{int(match[1]) - 1}."),
    Rule(r"\.kernel$", ".weight", Tensor.t),
    Rule(r"\.offset$", ".bias"),
)


def foreign() -> dict[str, Tensor]:
    return {
        "layer1.kernel": torch.arange(6.0).view(2, 3),
        "layer1.offset": torch.ones(3),
        "layer2.kernel": torch.zeros(3, 1),
        "layer2.offset": torch.ones(1),
    }


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def problem(state: dict[str, Tensor]) -> str:
    with pytest.raises(Problem) as raised:
        rename(state, RULES, network().state_dict(), "a.pt")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_names_and_tensors_change_in_the_order_of_the_table() -> None:
    renamed = rename(foreign(), RULES, network().state_dict())
    assert renamed["0.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert renamed["1.bias"].tolist() == [1]


def test_what_only_changes_its_name_is_not_copied() -> None:
    state = foreign()
    renamed = rename(state, RULES, network().state_dict())
    assert renamed["0.bias"].data_ptr() == state["layer1.offset"].data_ptr()
    assert renamed["0.weight"].data_ptr() == state["layer1.kernel"].data_ptr()


PIECES = (Rule(r"^([kvq])$", lambda match: f"0.weight[{'qkv'.index(match[1])}]"), Rule("^b$", "0.bias"))


def test_pieces_are_joined_in_their_own_order() -> None:
    state = {"v": torch.full((1, 2), 3.0), "q": torch.full((1, 2), 1.0), "b": torch.zeros(3), "k": torch.full((1, 2), 2.0)}
    ours = nn.Sequential(nn.Linear(2, 3)).state_dict()
    assert rename(state, PIECES, ours)["0.weight"].tolist() == [[1, 1], [2, 2], [3, 3]]
    del state["k"]
    with pytest.raises(Problem, match=r"1 has another shape \(q \[1, 2\] \+ v \[1, 2\] for 0.weight \[3, 2\]\)"):
        rename(state, PIECES, ours)


def test_a_name_without_a_place() -> None:
    assert problem({**foreign(), "ema": torch.ones(1)}) == "a.pt does not fit: 1 has no place in the network (ema)"


def test_a_name_that_no_rule_met_has_no_place_even_if_it_is_ours() -> None:
    state = foreign()
    state["0.bias"] = state.pop("layer1.offset")
    message = problem(state)
    assert "no place in the network (0.bias)" in message
    assert "not filled (0.bias)" in message


def test_two_names_for_one_place() -> None:
    assert "1 has no place in the network (layer1.bias)" in problem({**foreign(), "layer1.bias": torch.ones(3)})


def test_a_place_left_empty() -> None:
    state = foreign()
    del state["layer2.offset"]
    assert problem(state) == "a.pt does not fit: 1 of the network is not filled (1.bias)"


def test_a_shape_that_differs() -> None:
    message = problem({**foreign(), "layer1.kernel": torch.zeros(4, 3)})
    assert message == "a.pt does not fit: 1 has another shape (layer1.kernel [4, 3] for 0.weight [3, 2])"


def test_all_is_told_at_once_and_the_first_few_by_name() -> None:
    extra = {f"extra.{number}": torch.ones(1) for number in range(5)}
    message = problem({**extra, "layer1.offset": torch.ones(9)})
    assert "5 have no place in the network (extra.0, extra.1, extra.2, …)" in message
    assert "3 of the network are not filled (0.weight, 1.weight, 1.bias)" in message
    assert "1 has another shape (layer1.offset [9] for 0.bias [3])" in message


def test_meta_tensors_can_be_checked_without_memory() -> None:
    with torch.device("meta"):
        ours, state = network().state_dict(), {name: torch.empty(tensor.shape) for name, tensor in foreign().items()}
    assert rename(state, RULES, ours).keys() == ours.keys()
