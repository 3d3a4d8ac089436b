"""The generator: T5 with looks at an image, label scores and written rationales."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from miko_clf.encode import t5_tower, tiny_towers
from miko_clf.encode.tower import TextTower
from miko_clf.errors import EncoderError, RecipeError
from miko_clf.fuse.mr_harm import MrHarm
from miko_clf.fuse.outputs import Batch
from tests.support import checkpoints
from tests.support.tiny_generator import GENERATOR_LABELS, build_generator, make_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("t5") / "flan-t5-tiny"
    checkpoints.t5(path)
    return path


def open_gates(model: MrHarm) -> None:
    with torch.no_grad():
        for look in model.glances.looks:
            look.gate.fill_(0.7)


def plain(model: MrHarm, batch: Batch, target: Tensor) -> Tensor:
    """Return the logits that T5 itself gives a target, knowing nothing of images."""
    first = torch.arange(batch["text_ids"].shape[1]) == 0
    shown = (batch["text_mask"] | first).long()
    t5 = model.trunk.model
    return t5(input_ids=batch["text_ids"], attention_mask=shown, labels=target).logits


def test_shut_gates_leave_t5_as_it_is(folder: Path) -> None:
    model, batch = build_generator(folder), make_batch()
    t5 = model.trunk.model
    first = torch.arange(6) == 0
    shown = (batch["text_mask"] | first).long()
    wanted = t5.encoder(input_ids=batch["text_ids"], attention_mask=shown).last_hidden_state
    fused = model(batch)
    assert torch.allclose(fused.tokens, wanted, atol=1e-6)
    assert torch.equal(fused.present, shown.bool())
    open_gates(model)
    assert (model(batch).tokens - wanted).abs().max() > 1e-2


def test_the_published_form_disturbs_t5_from_the_start(folder: Path) -> None:
    model, batch = build_generator(folder, gated=False), make_batch()
    wanted = model.trunk(batch["text_ids"], batch["text_mask"] | (torch.arange(6) == 0))
    moved = (model(batch).tokens - wanted).abs().amax((1, 2))
    assert moved.min() > 1e-3  # a post without an image looks at the null token
    for look in model.glances.looks:
        assert look.heads == 1
        assert look.query.out_features == 8
        assert torch.equal(look.value.weight, look.key.weight)
        assert look.value.weight is not look.key.weight


def test_there_is_one_look_a_block_and_one_at_the_end(folder: Path) -> None:
    model, seen = build_generator(folder, gated=False), []
    for look in model.glances.looks:
        look.register_forward_hook(lambda look, given, moved: seen.append((look, given[0], moved)))
    fused = model(make_batch())
    assert model.trunk.num_blocks == 2
    assert [look for look, _, _ in seen] == list(model.glances.looks)
    (_, _, last), (_, normed, output) = seen[1:]
    assert torch.equal(normed, model.trunk.model.encoder.final_layer_norm(last))
    assert torch.equal(output, fused.tokens)


def test_an_absent_image_is_never_looked_at(folder: Path) -> None:
    model, batch = build_generator(folder, gated=False), make_batch()
    other = {**batch, "pixels": 255 - batch["pixels"]}
    changed = (model(batch).logits - model(other).logits).abs().amax(1)
    here = batch["image_present"]
    assert (changed[~here] == 0).all()
    assert (changed[here] > 1e-4).all()


def test_a_label_scores_what_t5_gives_its_string(folder: Path) -> None:
    model, batch = build_generator(folder), make_batch(8)
    found = model(batch).logits
    words = model.text_tower.words.tokenizer
    for place, label in enumerate(GENERATOR_LABELS):
        ids = torch.tensor(words.encode(f"The answer is: {label}").ids)
        assert ids[-1] == model.trunk.end_id
        target = ids.repeat(8, 1)
        log = plain(model, batch, target).log_softmax(-1)
        alone = log.gather(-1, target[..., None]).sum((1, 2))
        assert torch.allclose(found[:, place], alone, atol=1e-4)


def test_the_loss_of_a_label_is_t5s_own(folder: Path) -> None:
    model, batch = build_generator(folder), make_batch()
    label = torch.tensor([2, 0, 1, 0])
    ids = model.label_ids[label].masked_fill(~model.label_mask[label], -100)
    logits = plain(model, batch, ids)
    wanted = functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=-100)
    assert torch.allclose(model.label_loss(model(batch).logits, label), wanted, atol=1e-5)


def test_writing_is_t5s_loss_of_the_prefixed_rationale(folder: Path) -> None:
    model, batch = build_generator(folder), make_batch()
    texts = ["a burnt cake", "the cake", None, "lies about a burnt cake"]
    rows = model.text_tower.words.encode(texts, 20)
    ids = torch.zeros(4, max(map(len, rows)), dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
    written = {**batch, "written_ids": ids, "written_mask": mask}
    whole = model.text_tower.words.encode([f"Output: {t}" if t else None for t in texts], 30)
    target = torch.full((4, max(map(len, whole))), -100)
    for place, row in enumerate(whole):
        target[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    logits = plain(model, batch, target)
    wanted = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)
    assert torch.allclose(model(written).writing, wanted, atol=1e-5)
    assert model({**written, "written_mask": torch.zeros_like(mask)}).writing == 0
    quick = model(written, guess_only=True)
    assert quick.logits.shape == (4, 0)
    assert torch.equal(quick.writing, model(written).writing)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_rationale_is_what_t5_itself_would_write(folder: Path, beams: int) -> None:
    model, batch = build_generator(folder), make_batch()
    begun = torch.cat([torch.zeros(4, 1, dtype=torch.int64), model.prefix.expand(4, -1)], dim=1)
    shown = (batch["text_mask"] | (torch.arange(6) == 0)).long()
    wanted = model.trunk.model.generate(
        batch["text_ids"], attention_mask=shown, decoder_input_ids=begun, max_new_tokens=12,
        num_beams=beams, do_sample=False,
    )[:, begun.shape[1] :]  # fmt: skip
    found = model.write(batch, 12, beams)
    ends = model.trunk.end_id
    for row, other in zip(found.tolist(), wanted.tolist(), strict=True):
        stop = other.index(ends) + 1 if ends in other else len(other)
        assert row[:stop] == other[:stop]
        assert not any(row[stop:])
    open_gates(model)
    assert not torch.equal(model.write(batch, 12, beams)[:, :6], found[:, :6])


def test_every_pattern_of_missing_inputs_has_finite_scores_and_gradients(folder: Path) -> None:
    for gated in (True, False):
        model = build_generator(folder, gated=gated).train()
        batch = make_batch(8, 1)
        batch |= {"written_ids": batch["text_ids"], "written_mask": batch["text_mask"]}
        fused = model(batch)
        (model.label_loss(fused.logits, torch.arange(8) % 3) + fused.writing).backward()
        assert torch.isfinite(fused.logits).all()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_gradients_reach_looks_and_t5_and_leave_a_frozen_image_tower(folder: Path) -> None:
    model = build_generator(folder).train()
    assert not model.image_tower.training
    assert model.text_tower.training
    open_gates(model)
    fused = model(make_batch())
    functional.cross_entropy(fused.logits, torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is None for p in model.image_tower.parameters())
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    still = [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
    assert all(name.endswith("key.bias") for name in still)  # softmax is blind to it


def test_kept_image_states_stand_in_for_pixels(folder: Path) -> None:
    model, batch = build_generator(folder, gated=False), make_batch()
    kept = {k: v for k, v in batch.items() if k != "pixels"}
    kept["image_states"] = model.encode(batch)["image_states"]
    assert model.split == ("image",)
    assert torch.equal(model(kept).logits, model(batch).logits)


def test_a_generator_without_an_image_is_t5_alone(folder: Path) -> None:
    whole, batch = build_generator(folder), make_batch()
    alone = MrHarm(
        None, whole.text_tower, content_texts=("text",), labels=GENERATOR_LABELS, heads=1,
        share=1.0, gated=True, dropout=0.0,
    ).eval()  # fmt: skip
    texts = {name: batch[name] for name in ("text_ids", "text_mask")}
    assert torch.allclose(alone(texts).logits, whole(batch).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content_texts": ("text", "description")}, "joined: separated"),
        ({"heads": 3}, "fusion.heads 3 does not divide 8"),
        ({"labels": ("q", "x")}, "spells two of the labels q, x alike"),
    ],
)
def test_what_cannot_be_built_says_why(folder: Path, changes: dict, message: str) -> None:
    given = {"content_texts": ("text",), "labels": GENERATOR_LABELS, "heads": 1, "share": 0.5}
    tower: TextTower = t5_tower.load_t5_tower(str(folder))
    with pytest.raises((RecipeError, EncoderError), match=message):
        MrHarm(
            tiny_towers.build_tiny_image_tower(32, 24),
            tower,
            gated=False,
            dropout=0.0,
            **{**given, **changes},
        )
