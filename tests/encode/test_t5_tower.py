"""The T5 tower: its weights, its blocks and its adapters."""

from pathlib import Path

import pytest
import torch
from torch import nn

from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.encode import t5_tower
from miko_clf.encode.finetune import add_lora, merge_lora
from miko_clf.errors import EncoderError
from tests.support import checkpoints
from tests.support.tiny_generator import build_generator, make_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("t5") / "flan-t5-tiny"
    checkpoints.t5(path)
    return path


def test_weights_saved_once_rebuild_the_tower(folder: Path) -> None:
    model, batch = build_generator(folder, gated=False), make_batch()
    tower = model.text_tower
    state = tower.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    again = t5_tower.rebuild_t5_tower(
        tower.plan, TextTokenizer(tower.words.tokenizer, tower.words.pad_id)
    )
    again.load_state_dict(state)
    assert (tower.limit, tower.width) == (again.limit, again.width) == (512, 16)
    rebuilt = build_generator(folder, gated=False)
    rebuilt.text_tower = again.eval()
    rebuilt.glances.load_state_dict(model.glances.state_dict())
    assert torch.equal(rebuilt(batch).logits, model(batch).logits)
    assert again.trunk.model.lm_head.weight is not again.trunk.model.shared.weight
    assert again.trunk.model.encoder.embed_tokens.weight is again.trunk.model.shared.weight


def test_blocks_of_encoder_and_decoder_are_one_ladder(folder: Path) -> None:
    trunk = t5_tower.load_t5_tower(str(folder)).trunk
    t5 = trunk.model
    assert [rung[0] for rung in trunk.list_blocks()] == [*t5.encoder.block, *t5.decoder.block]
    assert trunk.list_top() == [t5.decoder.final_layer_norm, t5.lm_head]


def test_adapters_on_t5_leave_the_same_scores_once_merged(folder: Path) -> None:
    model, batch = build_generator(folder), make_batch()
    before = model(batch).logits
    add_lora(model.text_tower, rank=2, alpha=4.0, dropout=0.0, targets=("q", "v"))
    learn = {n for n, p in model.text_tower.named_parameters() if p.requires_grad}
    assert len(learn) == 2 * 2 * 4  # two matrices of two maps in four attentions
    for name, parameter in model.text_tower.named_parameters():
        if name in learn:
            nn.init.normal_(parameter, std=0.3)
    apart = model.eval()(batch).logits
    assert (apart - before).abs().max() > 1e-2
    merge_lora(model.text_tower)
    assert torch.allclose(model(batch).logits, apart, atol=1e-4)  # of scores near -60


def test_another_family_is_refused(tmp_path: Path) -> None:
    checkpoints.bert(tmp_path / "bert")
    with pytest.raises(EncoderError, match=r"T5 family, .* this is a bert"):
        t5_tower.load_t5_tower(str(tmp_path / "bert"))
