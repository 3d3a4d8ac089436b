"""Relations: what the reader looks at, and what it cannot do without."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from miko_clf import metrics
from miko_clf.data.dataset import open_folder
from miko_clf.encode.tower import Attention
from miko_clf.evaluate.explain.relations import (
    NO_RELATION,
    SLOT_RELATIONS,
    RelationImportance,
    measure_relations,
    record_attention,
)
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.cross_attention import NUM_SLOTS, CrossAttentionFusion
from miko_clf.train.predict import mask_for_arm
from tests.support import planted_systems


@pytest.fixture(scope="module")
def intended(tmp_path_factory: pytest.TempPathFactory) -> SystemPredictions:
    return planted_systems.train_where_intent_decides(tmp_path_factory.mktemp("intended"))


@pytest.fixture(scope="module")
def importances(intended: SystemPredictions) -> dict[str, RelationImportance]:
    return by_name(intended, 300)


@pytest.fixture(scope="module")
def tested(bundle: Path, world: Path) -> SystemPredictions:
    data = open_folder(world / "sarcasm")
    return planted_systems.open_subject(bundle, data.read("test"), data.read("train"))


def in_student(subject: SystemPredictions) -> SystemPredictions:
    return replace(subject, arm="student", probabilities=subject.predictor.probabilities("student"))


def by_name(subject: SystemPredictions, num_resamples: int = 20) -> dict[str, RelationImportance]:
    return {one.relation: one for one in measure_relations(subject, num_resamples)}


def test_weights_are_those_by_which_attention_reads() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2, 0.0)
    queries, memory = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    present = torch.tensor([[True, False, True, True, False]]).expand(3, -1)
    weights = attention.weights(queries, memory, present)
    value = attention.key_value(memory).chunk(2, dim=-1)[1].unflatten(-1, (2, 4)).transpose(1, 2)
    read = attention.out((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(read, attention(queries, memory, present), atol=1e-6)
    assert not weights[..., ~present[0]].any()


def test_the_one_relation_that_decides_is_found_by_leaving_it_out(
    intended: SystemPredictions, importances: dict[str, RelationImportance]
) -> None:
    assert (intended.decided == intended.truth).all()
    found = importances
    assert list(found) == ["xIntent", "xReact", NO_RELATION]
    assert found["xIntent"].left_out["auroc"].high < -0.1
    assert found["xIntent"].left_out["macro_f1"].high < -0.1
    assert found["xReact"].left_out["auroc"].low > -0.1
    assert (found["xIntent"].posts, found["xReact"].posts) == (40, 26)
    assert (found["xIntent"].taught, found["xReact"].taught) == (160, 106)


def test_a_mean_of_intentions_has_no_attention_and_loses_what_is_left_out(
    tmp_path: Path,
) -> None:
    found = by_name(planted_systems.train_mean_where_intent_decides(tmp_path), 300)
    assert list(found) == ["xIntent", "xReact"]
    assert found["xIntent"].left_out["auroc"].high < -0.1
    assert found["xReact"].left_out["auroc"].low > -0.1
    assert all(math.isnan(each.attention.value) for each in found.values())


def test_the_one_relation_that_decides_is_looked_at_most(
    importances: dict[str, RelationImportance],
) -> None:
    others = (importances["xReact"].attention.high, importances[NO_RELATION].attention.high)
    assert importances["xIntent"].attention.low > max(others)


@pytest.mark.parametrize("arm", ["with", "student"])
def test_shares_of_attention_add_up_to_one(tested: SystemPredictions, arm: str) -> None:
    found = measure_relations(tested if arm == "with" else in_student(tested), 20)
    assert sum(one.attention.value for one in found) == pytest.approx(1, abs=1e-5)
    assert all(one.attention.value > 0 for one in found)


def test_where_no_post_has_intentions_nothing_is_read(
    tested: SystemPredictions, bundle: Path
) -> None:
    bare = [post.model_copy(update={"intentions": ()}) for post in tested.posts]
    found = measure_relations(planted_systems.open_subject(bundle, bare), 20)
    assert [one.relation for one in found] == [NO_RELATION]
    assert found[0].attention.value == pytest.approx(1)


def test_leaving_a_relation_out_is_what_posts_without_it_would_score(
    tested: SystemPredictions, bundle: Path
) -> None:
    found = by_name(tested)["xIntent"]
    others = [
        post.model_copy(
            update={"intentions": tuple(i for i in post.intentions if i.relation != "xIntent")}
        )
        for post in tested.posts
    ]
    less = planted_systems.open_subject(bundle, others)
    for name, gap in found.left_out.items():
        scored = [
            metrics.measure_classification(
                each.probabilities,
                each.truth,
                positive=1,
                threshold=tested.threshold,
                names=[name],
            )[name]
            for each in (less, tested)
        ]
        assert gap.value == pytest.approx(scored[0] - scored[1], abs=1e-6)


def test_a_student_reads_a_slot_for_every_relation_and_the_rationale(
    tested: SystemPredictions,
) -> None:
    found = measure_relations(in_student(tested), 20)
    assert [one.relation for one in found] == [*SLOT_RELATIONS, NO_RELATION]
    assert {one.posts for one in found} == {len(tested.posts)}
    assert found[SLOT_RELATIONS.index("rationale")].taught == len(tested.train)


def test_slots_that_are_all_masked_are_not_read_at_all(tested: SystemPredictions) -> None:
    model = tested.predictor.model
    with torch.inference_mode():
        states = model.encode(tested.predictor.feed.batch([0, 1, 2]))
        student, without = mask_for_arm(states, "student"), mask_for_arm(states, "without")
        none = {**student, "slot_mask": torch.zeros(3, NUM_SLOTS, dtype=torch.bool)}
        every = {**student, "slot_mask": torch.ones(3, NUM_SLOTS, dtype=torch.bool)}
        assert torch.equal(model(none).logits, model(without).logits)
        assert torch.equal(model(every).logits, model(student).logits)
        assert not torch.equal(model(student).logits, model(without).logits)


def test_listening_changes_no_logit_and_leaves_nothing_behind(tested: SystemPredictions) -> None:
    model = tested.predictor.model
    assert isinstance(model, MikoClassifier)
    assert isinstance(model.fusion, CrossAttentionFusion)
    with torch.inference_mode():
        batch = tested.predictor.feed.batch([0, 1])
        before = model(batch).logits
        with record_attention(model.fusion) as heard:
            assert torch.equal(model(batch).logits, before)
        assert len(heard) == len(model.fusion.layers)
        model(batch)
        assert len(heard) == len(model.fusion.layers)
    assert np.allclose(heard[0].sum(-1), 1)


def test_a_system_that_reads_no_intentions_says_nothing_of_relations(
    tested: SystemPredictions,
) -> None:
    assert measure_relations(replace(tested, arm="without"), 20) == []
