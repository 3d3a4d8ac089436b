"""A small language model learns to write intentions; its stage of training, folder and card."""

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from miko_clf import manifest
from miko_clf.data.post import RELATIONS, Post
from miko_clf.distil.local_model import (
    INTENTION_LM_FILE,
    INTENTION_LM_PROMPT,
    IntentionLmRecord,
    load_language_model,
    load_language_tokenizer,
)
from miko_clf.distil.request import load_prompt
from miko_clf.errors import DistilError
from miko_clf.fuse.outputs import Batch
from miko_clf.progress import print_notice
from miko_clf.recipe.sections import EarlyStoppingSection, OptimiserSection
from miko_clf.train.checkpoint import STAGE_DONE
from miko_clf.train.intention_lm_data import (
    IGNORED_LABEL,
    CompletionDataset,
    CompletionExample,
    build_completion_examples,
    fingerprint_completion_examples,
    split_completion_examples,
)
from miko_clf.train.loop import (
    TrainingRun,
    check_single_process,
    choose_precision,
    train_stage,
)
from miko_clf.train.optim import LayerwiseRate

_RATES = {"lora": 3e-4, "full": 5e-5}
_CARD = """\
# A student of intentions

Writes why an author posted what they posted: given the words of a post and a description of its
picture, it completes one sentence for each of {relations}. Fine-tuned from `{base}` ({how}) on
{examples[train]:,} completions of {posts[train]:,} posts that a larger model wrote.

| | |
| --- | --- |
| loss on {examples[val]:,} completions of {posts[val]:,} posts held back | {loss:.4f} |
| kept epoch | {epoch} |
| seed | {seed} |
| fingerprint of the data | `{data:.16}` |
| sha256 of the weights | `{weights:.16}` |

Use it in the place of a server: `miko-clf distil POSTS --server local:DIR --kb FILE`. The licence
is that of the base model. It repeats its teacher's errors and adds its own, about people it knows
nothing of: what it writes is a guess.
"""


@dataclass(frozen=True)
class IntentionLMRun:
    """How a student is taught.

    `model` is a folder or a hub name. `rank` is that of LoRA, unless `full` tunes all weights.
    `rate` is the peak learning rate (3e-4 for LoRA, 5e-5 for all weights). `patience` epochs
    without a lower validation loss end it. `minutes` pass between checkpoints within an epoch.
    Intentions known to be less plausible than `plausible` are not taught.
    """

    model: str
    out: Path
    full: bool = False
    rank: int = 16
    epochs: int = 5
    batch_size: int = 16
    rate: float | None = None
    patience: int = 2
    prompt_tokens: int = 256
    answer_tokens: int = 64
    plausible: float = 0.0
    seed: int = 0
    minutes: float = 10.0
    overwrite: bool = False

    @property
    def work(self) -> Path:
        """Where checkpoints are kept until the student is written."""
        return self.out.with_name(self.out.name + ".training")

    @property
    def optimiser(self) -> OptimiserSection:
        """How the weights move."""
        rate = self.rate or _RATES["full" if self.full else "lora"]
        return OptimiserSection(rate=rate, warmup=0.05, decay="linear")

    @property
    def early(self) -> EarlyStoppingSection:
        """When it ends before its last epoch."""
        return EarlyStoppingSection(metric="loss", patience=self.patience)


class CompletionStage:
    """Complete sentences as a larger model did."""

    name = "student"
    salt: tuple[int, ...] = ()

    def __init__(self, run: IntentionLMRun) -> None:
        self.settings = run

    def set_rates(self, model: nn.Module) -> Mapping[str, LayerwiseRate]:
        """Return the rates of their own that parameters have: none."""
        return {}

    def list_state(self) -> Sequence[Any]:
        """Return what else has a state: nothing."""
        return ()

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make ready for an epoch: nothing to do."""

    def vary(self, batch: Batch, random: np.random.Generator) -> Batch:
        """Return the batch as it is."""
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the completions' tokens."""
        loss: Tensor = model(**batch).loss
        return loss

    @torch.inference_mode()
    def validate(self, model: nn.Module, val: CompletionDataset) -> Mapping[str, float]:
        """Return the mean loss over the tokens of the completions that were held back."""
        model.eval()
        device = next(model.parameters()).device
        total, num_tokens, size = 0.0, 0, self.settings.batch_size
        order = np.argsort([val.length(index) for index in range(len(val))])
        for start in range(0, len(order), size):
            batch = val.batch(order[start : start + size].tolist())
            counted = int(torch.ne(batch["labels"], IGNORED_LABEL).sum())
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, choose_precision() == "bf16"):
                total += float(self.loss(model, batch)) * counted
            num_tokens += counted
        if not math.isfinite(total):
            raise DistilError("training diverged: the loss is not finite; choose a lower --rate")
        return {"loss": total / num_tokens}


def train_intention_lm(posts: Iterable[Post], run: IntentionLMRun) -> IntentionLmRecord:
    """Fine-tune a student on posts with intentions, write its folder, and return its record.

    A run that was stopped or killed goes on where it was; on a CPU its weights are those of an
    unbroken one. Raises `StoppedError` on Ctrl-C, once a checkpoint is written, and a `MikoError`
    for whatever a person can mend.
    """
    check_single_process()
    is_student = (run.out / INTENTION_LM_FILE).is_file()
    if run.out.exists() and not (run.overwrite and is_student):
        advice = ", or add --overwrite" if is_student else ""
        raise DistilError(f"{run.out} exists; name another --out{advice}")
    with manifest.lock_folder(run.work):
        examples = build_completion_examples(posts, run.plausible)
        train, val = split_completion_examples(examples, run.seed)
        data = fingerprint_completion_examples(examples)
        facts = {**asdict(run), "data": data, "versions": manifest.collect_versions()}
        for name in ("out", "minutes", "overwrite"):
            del facts[name]
        path = run.work / "run.json"
        if manifest.claim_folder(path, facts, error=DistilError, overwrite=run.overwrite):
            print_notice(f"going on with the run in {run.work}")
        words = load_language_tokenizer(run.model)
        model = _load_model(run)
        training = TrainingRun(run.model, run.work, run.seed, run.batch_size, run.minutes)
        datasets = [_tokenise_part(part, words, model, run) for part in (train, val)]
        train_stage(training, model, CompletionStage(run), *datasets)
        record = _write_intention_lm(run, model, words, {"train": train, "val": val}, data)
        shutil.rmtree(run.work)
    return record


def _load_model(run: IntentionLMRun) -> Any:
    """Return the model with what is to learn of it; frozen weights are halved on a GPU."""
    torch.manual_seed(run.seed)
    fast = choose_precision() == "bf16" and not run.full
    model = load_language_model(run.model, dtype=torch.bfloat16 if fast else torch.float32)
    if run.full:
        return model
    kind = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    lora = LoraConfig(
        r=run.rank,
        lora_alpha=2 * run.rank,
        lora_dropout=0.05,
        target_modules="all-linear",
        task_type=kind,
    )
    with warnings.catch_warnings():  # peft reads an attribute that transformers has renamed
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return get_peft_model(model, lora)


def _tokenise_part(
    part: list[CompletionExample], words: Any, model: Any, run: IntentionLMRun
) -> CompletionDataset:
    return CompletionDataset(
        part,
        words,
        prompt_tokens=run.prompt_tokens,
        answer_tokens=run.answer_tokens,
        encoder_decoder=model.config.is_encoder_decoder,
    )


def _write_intention_lm(
    run: IntentionLMRun,
    model: Any,
    words: Any,
    parts: Mapping[str, Sequence[CompletionExample]],
    data: str,
) -> IntentionLmRecord:
    """Write a student whole or not at all, LoRA merged into the weights, and return its record."""
    if not run.full:
        model = model.merge_and_unload()
    with manifest.write_atomically(run.out) as folder:
        model.save_pretrained(folder)
        words.save_pretrained(folder)
        metrics = run.work / "metrics.jsonl"
        if metrics.exists():
            shutil.copy(metrics, folder)
        record = _describe_training(run, model, parts, data, _hash_weights(folder))
        lines = record.model_dump_json(indent=2) + "\n"
        (folder / INTENTION_LM_FILE).write_text(lines, encoding="utf-8")
        (folder / "README.md").write_text(_format_card(record), encoding="utf-8")
    return record


def _describe_training(
    run: IntentionLMRun,
    model: Any,
    parts: Mapping[str, Sequence[CompletionExample]],
    data: str,
    weights: str,
) -> IntentionLmRecord:
    taught = {example.relation for example in parts["train"]}
    base = Path(run.model)
    best = json.loads((run.work / CompletionStage.name / STAGE_DONE).read_text(encoding="utf-8"))
    return IntentionLmRecord(
        base=base.resolve().name if base.is_dir() else run.model,
        encoder_decoder=bool(model.config.is_encoder_decoder),
        rank=None if run.full else run.rank,
        relations=tuple(name for name in RELATIONS if name in taught),
        prompt=load_prompt(INTENTION_LM_PROMPT).sha256,
        prompt_tokens=run.prompt_tokens,
        answer_tokens=run.answer_tokens,
        data=data,
        posts={name: len({row.masked.post for row in part}) for name, part in parts.items()},
        examples={name: len(part) for name, part in parts.items()},
        seed=run.seed,
        epoch=best["epoch"],
        loss=-best["best"],
        weights=weights,
        versions=manifest.collect_versions(),
    )


def _format_card(record: IntentionLmRecord) -> str:
    how = "all weights" if record.rank is None else f"LoRA of rank {record.rank}, merged"
    values = record.model_dump() | {"relations": ", ".join(record.relations), "how": how}
    return _CARD.format(**values)


def _hash_weights(folder: Path) -> str:
    """Return one sha256 of all files of weights."""
    digests = [manifest.hash_file(path) for path in sorted(folder.glob("*.safetensors"))]
    assert digests
    return hashlib.sha256("".join(digests).encode()).hexdigest()
