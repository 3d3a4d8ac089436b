"""Texts longer than a tower reads: cut, cut from both ends, or read in windows; and counted."""

from pathlib import Path

import checkpoints
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from miko_clf.data.words import Long, Words, pad
from miko_clf.encode import from_transformers
from miko_clf.encode.towers import TextTower, pooled

BEFORE, BEHIND = 0, 1
LONG = " ".join(f"w{i}" for i in range(2, 12))  # ids 2 to 11


@pytest.fixture
def words() -> Words:
    """A tokenizer of one id a word, with one special token before a text and one behind."""
    names = {"[a]": BEFORE, "[z]": BEHIND, "[u]": 99} | {f"w{i}": i for i in range(2, 40)}
    tokenizer = Tokenizer(models.WordLevel(names, "[u]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[a] $A [z]", special_tokens=[("[a]", BEFORE), ("[z]", BEHIND)]
    )
    return Words(tokenizer, 1)


@pytest.mark.parametrize(
    ("long", "max_length", "window", "wanted", "num_cut"),
    [
        ("cut", 7, None, [0, 2, 3, 4, 5, 6, 1], 1),
        ("ends", 7, None, [0, 2, 3, 4, 10, 11, 1], 1),
        ("ends", 3, None, [0, 2, 1], 1),
        ("ends", 12, None, [0, *range(2, 12), 1], 0),
        ("chunk", 18, 6, [0, 2, 3, 4, 5, 1, 0, 6, 7, 8, 9, 1, 0, 10, 11, 1], 0),
        ("chunk", 17, 6, [0, 2, 3, 4, 5, 1, 0, 6, 7, 8, 9, 1], 1),
        ("chunk", 12, 12, [0, *range(2, 12), 1], 0),
        ("chunk", 7, 40, [0, 2, 3, 4, 5, 6, 1], 1),
    ],
)
def test_a_long_text_is_kept_as_asked_and_what_is_lost_is_counted(
    long: Long, max_length: int, window: int | None, wanted: list[int], num_cut: int, words: Words
) -> None:
    assert words.encode([LONG], max_length, long=long, window=window) == [wanted]
    assert (words.num_texts, words.num_cut) == (1, num_cut)


@pytest.mark.parametrize("long", ["cut", "ends", "chunk"])
def test_short_and_absent_texts_are_the_same_under_every_policy(long: Long, words: Words) -> None:
    rows = words.encode(["w3  w4", None, " ", LONG], 6, long=long)
    assert rows[:3] == [[0, 3, 4, 1], [], []]
    assert len(rows[3]) <= 6
    assert (words.num_texts, words.num_cut) == (2, 1)


def test_the_windows_of_a_long_text_are_read_as_texts_of_their_own(tmp_path: Path) -> None:
    checkpoints.roberta(tmp_path / "roberta")
    tower = from_transformers.text_tower(str(tmp_path / "roberta")).eval()
    long = "a burnt cake lovely " * 8
    rows = tower.words.encode([long, "a cake"], 48, long="chunk", window=tower.limit)
    states, mask = run(tower, rows)
    assert states.shape[:2] == (2, len(rows[0])) == (2, 38)
    for start in range(0, 38, tower.limit):
        piece = rows[0][start : start + tower.limit]
        alone, _ = run(tower, [piece])
        assert torch.allclose(states[0, start : start + len(piece)], alone[0], atol=1e-5)
    short, _ = run(tower, [rows[1]])
    assert torch.allclose(states[1, : len(rows[1])], short[0], atol=1e-5)
    assert torch.isfinite(states).all()
    assert torch.equal(pooled(states, mask, "last")[0], states[0, 37])


def run(tower: TextTower, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = (torch.from_numpy(array) for array in pad(rows, tower.words.pad_id))
    with torch.no_grad():
        return tower(ids, mask), mask


def test_states_are_pooled_by_first_mean_or_last_present_word() -> None:
    states = torch.arange(12.0).reshape(2, 3, 2)
    present = torch.tensor([[False, True, True], [False, False, False]])
    assert pooled(states, present, "first").tolist() == [[2, 3], [0, 0]]
    assert pooled(states, present, "mean").tolist() == [[3, 4], [0, 0]]
    assert pooled(states, present, "last").tolist() == [[4, 5], [0, 0]]
