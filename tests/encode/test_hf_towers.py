"""Decoders of transformers as text towers: causal, padded on the right, split, adapted, pooled."""

import copy
import functools
import json
from pathlib import Path

import jaxtyping
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor
from transformers import AutoModel

from miko_clf.data.preprocess import Preparation
from miko_clf.data.tokenizer import pad_ids
from miko_clf.encode import hf_towers
from miko_clf.encode.build import build_text_tower, rebuild_towers, write_plans
from miko_clf.encode.finetune import add_lora, count_blocks_above, merge_lora, unfreeze_blocks
from miko_clf.encode.tower import TextTower, pool_states
from miko_clf.export.graphs import GraphSpec
from miko_clf.export.onnx_export import write_graph
from miko_clf.recipe import sections
from tests.support import checkpoints

SPLIT = [name for name in checkpoints.DECODERS if name not in ("gemma3_text", "gpt_neox", "opt")]
ROWS = [[2, 3, 4, 5, 7, 2, 6], [5, 2, 7], [4, 4, 3, 6, 5]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint of each family, as transformers itself writes it."""
    root = tmp_path_factory.mktemp("decoders")
    torch.manual_seed(0)
    for family in checkpoints.DECODERS:
        checkpoints.decoder(root / family, family)
    return root


def make(folder: Path, family: str) -> TextTower:
    return copy.deepcopy(made(folder, family)).eval()


@functools.cache
def made(folder: Path, family: str) -> TextTower:
    return hf_towers.load_hf_text_tower(str(folder / family))


def pad(tower: TextTower, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    ids, mask = pad_ids(rows, tower.words.pad_id)
    return torch.from_numpy(ids), torch.from_numpy(mask)


@pytest.mark.parametrize("family", checkpoints.DECODERS)
def test_a_decoder_says_what_transformers_says_of_texts_padded_on_the_right(
    family: str, folder: Path
) -> None:
    tower = make(folder, family)
    own = AutoModel.from_pretrained(folder / family).eval()
    ids, mask = pad(tower, ROWS)
    with torch.no_grad():
        wanted = own(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        states = tower(ids, mask)
    assert torch.allclose(states[mask], wanted[mask], atol=1e-5)


@pytest.mark.parametrize("family", checkpoints.DECODERS)
def test_neither_a_later_word_nor_padding_changes_the_state_of_a_word(
    family: str, folder: Path
) -> None:
    tower = make(folder, family)
    ids, mask = pad(tower, ROWS)
    with torch.no_grad():
        states = tower(ids, mask)
        for row, text in enumerate(ROWS):
            for length in range(1, len(text) + 1):
                alone = tower(*pad(tower, [text[:length]]))
                assert torch.allclose(states[row, :length], alone[0], atol=1e-4)
        earlier = tower(ids.index_fill(1, torch.tensor([0]), 6), mask)
    assert not torch.allclose(states[:, 2], earlier[:, 2], atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_text_without_a_word_is_read_as_one_padding_token(family: str, folder: Path) -> None:
    tower = make(folder, family)
    ids, mask = pad(tower, [ROWS[0], []])
    with torch.no_grad():
        states, padding = tower(ids, mask), tower(*pad(tower, [[tower.words.pad_id]]))
    assert torch.isfinite(states).all()
    assert torch.allclose(states[1, :1], padding[0], atol=1e-5)
    assert not pool_states(states, mask, tower.pool)[1].any()


@pytest.mark.parametrize("family", checkpoints.DECODERS)
def test_a_decoder_is_pooled_at_its_last_word_and_pads_with_the_end_of_a_text(
    family: str, folder: Path
) -> None:
    tower = make(folder, family)
    assert (tower.pool, tower.words.pad_id, tower.limit) == ("last", 7, 16)
    with torch.no_grad():
        states = tower(*pad(tower, ROWS))
    pooled = pool_states(states, pad(tower, ROWS)[1], tower.pool)
    wanted = torch.stack([states[row, len(text) - 1] for row, text in enumerate(ROWS)])
    assert torch.equal(pooled, wanted)


@pytest.mark.parametrize("family", SPLIT)
def test_a_decoder_split_anywhere_is_what_stands_above_what_stands_below(
    family: str, folder: Path
) -> None:
    tower = make(folder, family)
    ids, mask = pad(tower, [*ROWS, []])
    with torch.no_grad():
        wanted = tower(ids, mask)
        for above in (1, 2):
            unfreeze_blocks(tower, above).eval()
            assert tower.split == 3 - above
            assert torch.allclose(tower.above(tower.below(ids, mask), mask), wanted, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_each_window_of_a_long_text_begins_at_the_first_position(family: str, folder: Path) -> None:
    tower = make(folder, family)
    long = [2 + place % 5 for place in range(38)]
    with torch.no_grad():
        states = tower(*pad(tower, [long, ROWS[1]]))
        for start in range(0, 38, tower.limit):
            piece = long[start : start + tower.limit]
            alone = tower(*pad(tower, [piece]))
            assert torch.allclose(states[0, start : start + len(piece)], alone[0], atol=1e-4)


def test_a_decoder_that_reads_enough_at_once_is_not_padded_to_windows(folder: Path) -> None:
    longer = sections.TextTowerSection(
        source="transformers", name=str(folder / "llama"), long="chunk", max_length=17
    )
    assert build_text_tower(longer, []).chunked
    assert not build_text_tower(longer.model_copy(update={"max_length": 16}), []).chunked


@pytest.mark.parametrize(
    ("family", "targets", "count"),
    [("llama", ("q", "k", "v", "out", "mlp"), 7), ("qwen2", ("k", "v"), 2), ("gpt2", ("out",), 1),
     ("gpt2", ("mlp",), 2), ("gpt2", ("q", "k", "v"), 1), ("phi3", ("q", "k", "v", "mlp"), 3),
     ("gpt_neox", ("q", "k", "v", "out", "mlp"), 4)],
)  # fmt: skip
def test_adapters_learn_beside_a_decoder_and_merge_into_it(
    family: str, targets: tuple[str, ...], count: int, folder: Path
) -> None:
    tower = make(folder, family)
    ids, mask = pad(tower, ROWS)
    bare, names = tower(ids, mask).detach(), tower.state_dict().keys()
    add_lora(tower, rank=2, alpha=4.0, dropout=0.1, targets=targets)
    learning = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    assert len(learning) == 3 * 2 * count  # three blocks, two matrices an adapter
    optimiser = torch.optim.AdamW(learning, lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        tower.train()(ids, mask)[..., 0].square().mean().backward()
        optimiser.step()
    learned = tower.eval()(ids, mask).detach()
    assert not torch.allclose(learned[mask], bare[mask], atol=1e-3)
    merge_lora(tower)
    assert tower.state_dict().keys() == names
    assert torch.allclose(tower.eval()(ids, mask)[mask], learned[mask], atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_words_and_positions_stand_below_every_block_of_a_decoder(
    family: str, folder: Path
) -> None:
    above = {"embed_tokens": 3, "wte": 3, "wpe": 3, "0": 2, "1": 1, "2": 0, "norm": 0, "ln_f": 0}
    for name, count in count_blocks_above(make(folder, family)).items():
        places = [part for part in name.split(".") if part in above]
        assert [above[part] for part in places] == [count], name


def test_a_recipe_says_how_texts_are_pooled_and_its_bundle_says_it_again(
    folder: Path, tmp_path: Path
) -> None:
    section = sections.TextTowerSection(source="transformers", name=str(folder / "llama"))
    for pool, wanted in (("auto", "last"), ("mean", "mean"), ("first", "first")):
        tower = build_text_tower(section.model_copy(update={"pool": pool}), [])
        write_plans(tmp_path / "towers.json", None, tower)
        _, again = rebuild_towers(tmp_path / "towers.json", tower.words)
        assert again is not None
        assert (tower.pool, again.pool) == (wanted, wanted)
        again.load_state_dict(tower.state_dict())
        inputs = pad(tower, ROWS)
        assert torch.equal(tower.eval()(*inputs), again.eval()(*inputs))


def test_a_tower_from_scratch_keeps_its_pool_in_a_bundle(tmp_path: Path) -> None:
    section = sections.TextTowerSection(source="tiny", frozen=False, pool="last")
    tower = build_text_tower(section, ["a burnt cake"])
    write_plans(tmp_path / "towers.json", None, tower)
    _, again = rebuild_towers(tmp_path / "towers.json", tower.words)
    assert again is not None
    assert (tower.pool, again.pool) == ("last", "last")


def test_a_decoder_tuned_to_the_mean_is_pooled_by_the_mean(folder: Path, tmp_path: Path) -> None:
    checkpoints.decoder(tmp_path / "tuned")
    (tmp_path / "tuned" / "1_Pooling").mkdir()
    said = {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}
    (tmp_path / "tuned" / "1_Pooling" / "config.json").write_text(json.dumps(said))
    assert hf_towers.load_hf_text_tower(str(tmp_path / "tuned")).pool == "mean"


@pytest.mark.graphs
@pytest.mark.parametrize(
    ("family", "max_length"),
    [*((family, 16) for family in checkpoints.DECODERS), ("llama", 40), ("gpt2", 40)],
)
def test_the_graph_of_every_decoder_says_what_torch_says_in_windows_too(
    family: str, max_length: int, folder: Path, tmp_path: Path
) -> None:
    section = sections.TextTowerSection(
        source="transformers", name=str(folder / family), long="chunk", max_length=max_length
    )
    tower = build_text_tower(section, []).eval()
    assert tower.chunked == (max_length > tower.limit)
    preparation = Preparation(
        inputs=("text",), image=None, pad_id=7, max_length=max_length, intention_length=2
    )
    graph = GraphSpec("text", tower, ("ids", "mask"), ("states",), lambda m, b: m(*b.values()))
    ids, mask = pad(tower, ROWS)
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        write_graph(graph, {"ids": ids, "mask": mask}, preparation, tmp_path / "text.onnx")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    session = InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])
    for rows in (ROWS, [[3], []], [[2 + place % 6 for place in range(max_length)], ROWS[0]]):
        ids, mask = pad(tower, rows)
        (states,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        with torch.no_grad():
            wanted = tower(ids, mask)
        assert torch.allclose(torch.from_numpy(states)[mask], wanted[mask], atol=1e-4)
        assert torch.isfinite(torch.from_numpy(states)).all()
