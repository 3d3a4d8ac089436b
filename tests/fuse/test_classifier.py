"""The vote of training posts: checked by hand, without jumps, and never certain."""

import math

import pytest
import torch
from torch import Tensor

from miko_clf.fuse.classifier import VOTE_PRIOR, NeighbourVote
from tests.support.pretended_mps import PretendedMps, put_on_mps


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def around(*degrees: float) -> Tensor:
    """Return unit vectors whose mean is zero, then moved: each angle and its opposite."""
    circle = [unit(turn) for angle in degrees for turn in (angle, angle + 180)]
    return torch.tensor(circle) + torch.tensor([30.0, 40.0])


def test_a_vote_is_what_a_hand_computes() -> None:
    keys, labels = around(10, 20, 50, 80), torch.tensor([0, 1, 1, 0, 1, 1, 0, 1])
    vote = NeighbourVote(keys, labels, num_labels=2, neighbours=2, share=1.0)
    second, third, fourth = (math.cos(math.radians(angle)) for angle in (20, 50, 80))
    taper = (third - fourth) / (second - fourth)  # the nearest two count 1, the fourth nothing
    wanted = (1 + taper + VOTE_PRIOR / 2) / (2 + taper + VOTE_PRIOR)
    found = vote(torch.zeros(1, 2), torch.tensor([[32.0, 40.0]])).exp()  # at 0 degrees
    assert float(found[0, 1]) == pytest.approx(wanted, abs=1e-3)  # keys are half precision
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)


def test_what_all_embeddings_share_says_nothing() -> None:
    keys, query = torch.randn(30, 4), torch.randn(5, 4)
    settings = {"num_labels": 3, "neighbours": 4, "share": 1.0}
    labels, moved = torch.arange(30) % 3, torch.tensor([5.0, -9.0, 2.0, 7.0])
    one, other = (
        NeighbourVote(keys, labels, **settings),
        NeighbourVote(keys + moved, labels, **settings),
    )
    assert torch.allclose(one.votes(query), other.votes(query + moved), atol=1e-2)


def test_the_share_of_the_vote_mixes_probabilities() -> None:
    keys, labels = torch.randn(30, 4), torch.arange(30) % 3
    logits, embedding = torch.randn(5, 3), torch.randn(5, 4)
    head = torch.softmax(logits, -1)
    votes = NeighbourVote(keys, labels, num_labels=3, neighbours=4, share=0.3).votes(embedding)
    for share in (0.0, 0.3, 1.0):
        vote = NeighbourVote(keys, labels, num_labels=3, neighbours=4, share=share)
        mixed = vote(logits, embedding).exp()
        assert torch.allclose(mixed, (1 - share) * head + share * votes, atol=1e-6)


def test_every_label_keeps_a_probability_even_where_no_neighbour_has_it() -> None:
    vote = NeighbourVote(
        around(0, 9), torch.zeros(4, dtype=int), num_labels=2, neighbours=2, share=1.0
    )
    logits = vote(torch.tensor([[0.0, 500.0]]), torch.tensor([unit(0)]))
    assert torch.isfinite(logits).all()
    assert logits[0, 0] > logits[0, 1]


def test_a_copy_that_takes_a_neighbours_place_moves_the_vote_by_next_to_nothing() -> None:
    keys, labels = around(5, 10, 20, 40, 40), torch.zeros(10, dtype=int)
    labels[6] = 1  # one of two copies in the fourth place, where the vote ends
    one = NeighbourVote(keys, labels, num_labels=2, neighbours=2, share=1.0)
    other = NeighbourVote(keys, labels.roll(2), num_labels=2, neighbours=2, share=1.0)
    query = torch.tensor([[31.0, 40.0]])
    assert torch.allclose(one.votes(query), other.votes(query), atol=1e-5)


def test_copies_of_one_post_vote_in_full() -> None:
    keys = torch.cat([torch.eye(4)[:1].expand(9, 4), -torch.eye(4)])
    labels = (torch.arange(13) < 9).long()
    vote = NeighbourVote(keys, labels, num_labels=2, neighbours=3, share=1.0)
    found = vote.votes(torch.eye(4)[:1])
    assert float(found[0, 1]) == pytest.approx((6 + VOTE_PRIOR / 2) / (6 + VOTE_PRIOR), abs=1e-5)


@pytest.mark.parametrize("num_keys", [1, 2, 5])
def test_fewer_posts_than_neighbours_vote_all_the_same(num_keys: int) -> None:
    labels = torch.arange(num_keys) % 2
    vote = NeighbourVote(torch.randn(num_keys, 4), labels, num_labels=2, neighbours=20, share=0.5)
    found = vote(torch.zeros(3, 2), torch.randn(3, 4)).exp()
    assert torch.allclose(found.sum(1), torch.ones(3), atol=1e-5)


def test_a_vote_is_loaded_into_a_blank_of_its_size() -> None:
    vote = NeighbourVote(
        torch.randn(9, 4), torch.arange(9) % 2, num_labels=2, neighbours=3, share=0.5
    )
    blank = NeighbourVote.blank(9, 4, num_labels=2, neighbours=3, share=0.5)
    blank.load_state_dict(vote.state_dict())
    logits, embedding = torch.randn(5, 2), torch.randn(5, 4)
    assert torch.equal(blank(logits, embedding), vote(logits, embedding))
    assert vote.keys.dtype == torch.float16


def test_a_vote_is_taken_on_a_device_without_double_precision() -> None:
    keys, labels = torch.randn(30, 4), torch.arange(30) % 3
    settings = {"num_labels": 3, "neighbours": 4, "share": 0.5}
    logits, embedding = torch.randn(5, 3), torch.randn(5, 4)
    wanted = NeighbourVote(keys, labels, **settings)(logits, embedding)
    with PretendedMps():
        vote = NeighbourVote(put_on_mps(keys), put_on_mps(labels), **settings)
        found = vote(put_on_mps(logits), put_on_mps(embedding))
        assert {buffer.device.type for buffer in vote.buffers()} == {"mps"}
        assert found.device.type == "mps"
        assert torch.equal(found.cpu(), wanted)
