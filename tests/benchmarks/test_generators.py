"""The benchmark of generators: figures checked by hand, and figures of other code."""

import json
import math
from pathlib import Path

import pytest
from generator_scores import (
    _ALL_RELATIONS,
    BertScore,
    IntentionWriter,
    benchmark_generators,
    list_writers,
    print_benchmark,
    write_benchmark,
)
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torchmetrics.functional.text.bert import bert_score
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from miko_clf.data.post import Intention, Post
from miko_clf.distil.relations import make_sentence
from miko_clf.errors import DistilError, EncoderError

WORDS = ["warn", "others", "share", "the", "picture", "go", "home", "again", "and", "laugh"]


def _post(name: str, **completions: str) -> Post:
    told = tuple(
        Intention(relation=relation, text=make_sentence(relation, end))
        for relation, end in completions.items()
    )
    return Post(id=name, text="what was said", intentions=told)


def _writer(name: str, *posts: Post) -> IntentionWriter:
    (one,) = list_writers(name, posts)
    return one


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    known = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(known, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=32,
    ).save_pretrained(folder)  # fmt: skip
    BertModel(
        BertConfig(
            vocab_size=len(known), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=32, initializer_range=0.5,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_who_repeats_the_reference_scores_one_and_who_says_nothing_like_it_nought() -> None:
    right = [_post(str(i), xIntent="warn others", oReact="amused today") for i in range(3)]
    wrong = [_post(str(i), xIntent="eat cake", oReact="bored stiff") for i in range(3)]
    found = benchmark_generators(
        _writer("right", *right), [_writer("same", *right), _writer("off", *wrong)]
    )
    same, off = (row.figures for row in found.rows)
    assert same["rouge_l"][_ALL_RELATIONS] == (1, 1, 1)
    assert off["rouge_l"][_ALL_RELATIONS] == (0, 0, 0)
    assert same["valid"][_ALL_RELATIONS].value == off["valid"][_ALL_RELATIONS].value == 1
    assert set(same["rouge_l"]) == {"xIntent", "oReact", _ALL_RELATIONS}
    assert "plausibility" not in same or not same["plausibility"]


def test_a_missing_or_unsound_intention_counts_nothing_and_only_shared_posts_are_compared() -> None:
    full = [_post(str(i), xIntent="warn others", xReact="glad again") for i in range(4)]
    half = [_post(str(i), xIntent="warn others") for i in range(1, 9)]
    silent = [Post(id="2", text="no intention here")]
    looped = "warn warn warn warn warn warn warn warn"
    stuck = [_post(str(i), xIntent=looped, xReact="glad again") for i in range(1, 4)]
    found = benchmark_generators(
        _writer("full", *full), [_writer("half", *half, *silent), _writer("stuck", *stuck)]
    )
    assert (found.posts, found.shared) == (3, 3)
    assert found.by_writer == {"full": 4, "half": 8, "stuck": 3}
    first, second = (row.figures for row in found.rows)
    assert first["rouge_l"]["xReact"].value == 0
    assert first["valid"][_ALL_RELATIONS].value == 0.5
    assert second["valid"]["xIntent"].value == 0
    assert second["valid"]["xReact"].value == 1


def test_of_several_references_the_nearest_counts_and_of_several_answers_the_mean() -> None:
    texts = ("warn others", "go home")
    both = tuple(Intention(relation="xWant", text=make_sentence("xWant", each)) for each in texts)
    reference = Post(id="1", text="said", intentions=both)
    one = _post("1", xWant="go home")
    two = Post(
        id="1",
        text="said",
        intentions=(both[1], Intention(relation="xWant", text=make_sentence("xWant", "eat cake"))),
    )
    found = benchmark_generators(
        _writer("both", reference), [_writer("one", one), _writer("two", two)]
    )
    assert [row.figures["rouge_l"][_ALL_RELATIONS].value for row in found.rows] == [1, 0.5]


def test_judges_scores_are_means_over_what_was_judged_alone() -> None:
    def judged(name: str, score: float | None) -> Post:
        one = Intention(relation="Open", text=make_sentence("Open", "it rains"), plausibility=score)
        return Post(id=name, text="said", intentions=(one,))

    writer = _writer("judged", judged("1", 1.0), judged("2", 0.0), judged("3", None))
    figures = benchmark_generators(writer, [writer._replace(name="again")], seed=3).rows[0].figures
    assert figures["plausibility"][_ALL_RELATIONS].value == 0.5
    assert figures["plausibility"][_ALL_RELATIONS].low == 0
    assert figures["plausibility"][_ALL_RELATIONS].high == 1


def test_distinct_is_the_share_of_different_words_and_pairs_and_has_no_interval() -> None:
    writer = _writer("x", _post("1", xIntent="go home"), _post("2", xIntent="go home again"))
    figures = benchmark_generators(writer, [writer._replace(name="y")]).rows[0].figures
    assert figures["distinct_1"]["xIntent"].value == pytest.approx(3 / 5)
    assert figures["distinct_2"][_ALL_RELATIONS].value == pytest.approx(2 / 3, abs=1e-4)
    assert math.isnan(figures["distinct_1"][_ALL_RELATIONS].low)


def test_an_interval_is_that_of_posts_drawn_again() -> None:
    right = [_post(str(i), xIntent="warn others") for i in range(100)]
    mixed = [_post(str(i), xIntent="warn others" if i < 50 else "eat cake") for i in range(100)]
    interval = (
        benchmark_generators(_writer("a", *right), [_writer("b", *mixed)])
        .rows[0]
        .figures["rouge_l"][_ALL_RELATIONS]
    )
    assert interval.value == 0.5
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)


def test_of_many_posts_a_sample_is_drawn_that_the_seed_decides() -> None:
    posts = [_post(str(i), xIntent="warn others" if i % 3 else "eat cake") for i in range(60)]
    right = [_post(str(i), xIntent="warn others") for i in range(60)]
    pair = _writer("right", *right), [_writer("other", *posts)]
    found = [benchmark_generators(*pair, limit=10, seed=seed) for seed in (0, 0, 1, 2, 3)]
    shares = [each.rows[0].figures["rouge_l"][_ALL_RELATIONS].value for each in found]
    assert (found[0].posts, found[0].shared) == (10, 60)
    assert shares[0] == shares[1]
    assert len(set(shares)) > 1


def test_models_of_one_knowledge_base_are_told_apart() -> None:
    def by(model: str, relation: str) -> Intention:
        text = make_sentence(relation, "go home")
        return Intention(relation=relation, text=text, provenance={"model": model})

    posts = [Post(id="1", text="a", intentions=(by("m1", "xWant"), by("m2", "oWant")))]
    found = list_writers("kb", posts, by_model=True)
    assert [each.name for each in found] == ["kb m1", "kb m2"]
    assert [one.relation for one in found[1].posts["1"].intentions] == ["oWant"]


def test_writers_without_a_post_in_common_cannot_be_compared() -> None:
    one, other = _writer("one", _post("1", xWant="go")), _writer("other", _post("2", xWant="go"))
    with pytest.raises(DistilError, match=r"no post has intentions of all.*one 1, other 1"):
        benchmark_generators(one, [other])
    with pytest.raises(DistilError, match="names of their own"):
        benchmark_generators(one, [one, one])


def test_bert_score_of_many_pairs_is_that_of_torchmetrics_one_by_one(tower: Path) -> None:
    texts = [" ".join(WORDS[i:j]) for i in range(6) for j in range(i + 1, 10, 2)]
    pairs = list(zip(texts, texts[5:] + texts[:5], strict=True))
    measure = BertScore(tower)
    theirs = [
        float(
            bert_score([a], [b], model=measure.model, user_tokenizer=measure.words, max_length=32)[
                "f1"
            ]
        )
        for a, b in pairs
    ]
    assert measure(pairs) == pytest.approx(theirs, abs=1e-5)
    assert measure([("warn others", "warn others"), ("", "go")]) == pytest.approx([1, 0])
    with pytest.raises(EncoderError, match="no encoder to compare texts with"):
        BertScore(tower / "absent")


def test_the_table_is_printed_and_written_with_every_relation(tower: Path, tmp_path: Path) -> None:
    right = [_post(str(i), xIntent="warn others", oReact="glad") for i in range(3)]
    near = [_post(str(i), xIntent="warn the others") for i in range(2)]
    measure = BertScore(tower)
    found = benchmark_generators(
        _writer("teacher", *right), [_writer("a|b", *near)], measure, tower=measure.name
    )
    write_benchmark(found, tmp_path / "table.json", command="as told")
    read = json.loads((tmp_path / "table.json").read_text())
    assert read["command"] == "as told"
    assert (read["posts"], read["posts_by_writer"]) == (2, {"teacher": 3, "a|b": 2})
    figures = read["rows"][0]["figures"]
    assert figures["bert_score"]["oReact"] == [0, 0, 0]
    assert figures["bert_score"]["xIntent"][0] > 0.5
    assert figures["distinct_1"]["all"][1:] == [None, None]
    page = (tmp_path / "table.md").read_text()
    assert "| a\\|b |" in page
    assert "on 2 posts that all have" in page
    console = Console(width=150, record=True, file=(tmp_path / "out").open("w"))
    print_benchmark(found, console)
    console.file.close()
    shown = console.export_text()
    assert "a|b" in shown
    assert "teacher 3, a|b 2" in shown
