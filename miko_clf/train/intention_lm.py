"""A small language model learns to write intentions; its checkpoints, folder and card."""

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

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
from miko_clf.recipe.sections import OptimiserSection
from miko_clf.train import checkpoint, optim
from miko_clf.train.checkpoint import StageProgress
from miko_clf.train.dataloader import LengthGroupedBatchSampler
from miko_clf.train.intention_lm_data import (
    IGNORED_LABEL,
    CompletionDataset,
    CompletionExample,
    build_completion_examples,
    fingerprint_completion_examples,
    split_completion_examples,
)
from miko_clf.train.loop import EpochBar, StoppedError, catch_interrupts, choose_precision

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


class IntentionLMFacts(NamedTuple):
    """What is known of a student whose training is over; `metrics` is the log of it."""

    base: str
    rank: int | None
    prompt_tokens: int
    answer_tokens: int
    seed: int
    data: str
    train: Sequence[CompletionExample]
    val: Sequence[CompletionExample]
    epoch: int
    loss: float
    metrics: Path


def write_intention_lm(
    out: Path, model: Any, words: Any, taught: IntentionLMFacts
) -> IntentionLmRecord:
    """Write a student whole or not at all, LoRA merged into the weights, and return its page."""
    if taught.rank is not None:
        model = model.merge_and_unload()
    with manifest.write_atomically(out) as folder:
        model.save_pretrained(folder)
        words.save_pretrained(folder)
        if taught.metrics.exists():
            shutil.copy(taught.metrics, folder)
        page = _describe_training(
            taught, bool(model.config.is_encoder_decoder), _digest_weights(folder)
        )
        (folder / INTENTION_LM_FILE).write_text(
            page.model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
        (folder / "README.md").write_text(_format_card(page), encoding="utf-8")
    return page


def _describe_training(
    taught: IntentionLMFacts, encoder_decoder: bool, weights: str
) -> IntentionLmRecord:
    parts = {"train": taught.train, "val": taught.val}
    learned = {lesson.relation for lesson in taught.train}
    base = Path(taught.base)
    return IntentionLmRecord(
        base=base.resolve().name if base.is_dir() else taught.base,
        encoder_decoder=encoder_decoder,
        rank=taught.rank,
        relations=tuple(name for name in RELATIONS if name in learned),
        prompt=load_prompt(INTENTION_LM_PROMPT).sha256,
        prompt_tokens=taught.prompt_tokens,
        answer_tokens=taught.answer_tokens,
        data=taught.data,
        posts={name: len({each.told.post for each in part}) for name, part in parts.items()},
        examples={name: len(part) for name, part in parts.items()},
        seed=taught.seed,
        epoch=taught.epoch,
        loss=taught.loss,
        weights=weights,
        versions=manifest.collect_versions(),
    )


def _format_card(page: IntentionLmRecord) -> str:
    how = "all weights" if page.rank is None else f"LoRA of rank {page.rank}, merged"
    values = page.model_dump() | {"relations": ", ".join(page.relations), "how": how}
    return _CARD.format(**values)


def _digest_weights(folder: Path) -> str:
    """Return one sha256 of all files of weights."""
    digests = [manifest.hash_file(path) for path in sorted(folder.glob("*.safetensors"))]
    assert digests
    return hashlib.sha256("".join(digests).encode()).hexdigest()


_METRICS = "metrics.jsonl"
_RATES = {"lora": 3e-4, "full": 5e-5}


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


def train_intention_lm(posts: Iterable[Post], course: IntentionLMRun) -> IntentionLmRecord:
    """Fine-tune a student on posts with intentions, write its folder, and return its page.

    A run that was stopped or killed goes on where it was; on a CPU its weights are those of an
    unbroken one. Raises `StoppedError` on Ctrl-C, once a checkpoint is written, and a `MikoError`
    for whatever a person can mend.
    """
    if course.out.exists() and not (
        course.overwrite and (course.out / INTENTION_LM_FILE).is_file()
    ):
        raise DistilError(
            f"{course.out} exists; name another --out"
            + (", or add --overwrite" if (course.out / INTENTION_LM_FILE).is_file() else "")
        )
    with manifest.lock_folder(course.work):
        taught = build_completion_examples(posts, course.plausible)
        train, val = split_completion_examples(taught, course.seed)
        data = fingerprint_completion_examples(taught)
        _continue_or_start(course, data)
        words = load_language_tokenizer(course.model)
        model = _load_model(course)
        progress = StageProgress()
        if checkpoint.is_stage_done(course.work):
            progress.load_state_dict(json.loads((course.work / checkpoint.STAGE_DONE).read_text()))
        else:
            pages = [_tokenise_part(part, words, model, course) for part in (train, val)]
            _IntentionLMTraining(course, model, pages[0], pages[1], progress).run()
        checkpoint.load_best_weights(model, course.work)
        page = write_intention_lm(
            course.out, model, words, _collect_facts(course, data, train, val, progress)
        )
        shutil.rmtree(course.work)
    return page


class _IntentionLMTraining:
    """The course under way."""

    def __init__(
        self,
        course: IntentionLMRun,
        model: nn.Module,
        train: CompletionDataset,
        val: CompletionDataset,
        progress: StageProgress,
    ) -> None:
        self.course, self.val, self.progress = course, val, progress
        self.accelerator = Accelerator(mixed_precision=choose_precision())
        lengths = [train.length(index) for index in range(len(train))]
        self.order = LengthGroupedBatchSampler(lengths, course.batch_size, course.seed)
        optimiser = optim.build_optimiser(model, course.optimiser, ())
        schedule = optim.build_schedule(
            optimiser, course.optimiser, course.epochs * len(self.order)
        )
        indices: Any = range(len(train))
        loader = DataLoader(indices, batch_sampler=self.order, collate_fn=train.batch)
        self.model, self.optimiser, self.schedule, self.loader = self.accelerator.prepare(
            model, optimiser, schedule, loader
        )
        self.accelerator.register_for_checkpointing(progress)
        self.accelerator.register_save_state_pre_hook(self._keep_what_learns)
        checkpoint.restore_checkpoint(self.accelerator, course.work)
        checkpoint.trim_metrics(course.work / _METRICS, "student", progress.step)

    def run(self) -> None:
        """Teach epoch by epoch until the last one, or until validation stops improving."""
        work, progress = self.course.work, self.progress
        with catch_interrupts() as asked, EpochBar("student", self.accelerator) as bar:
            while not progress.finished:
                self._epoch(bar, asked)
                self._validate(bar)
                checkpoint.save_checkpoint(self.accelerator, work, progress.step)
        checkpoint.finish_stage(work, progress.state_dict())
        self.accelerator.free_memory()

    def _epoch(self, bar: EpochBar, asked: list[int]) -> None:
        progress = self.progress
        self.order.epoch = progress.epoch
        self.order.start = progress.step - progress.epoch * len(self.order)
        bar.begin(progress.epoch, self.course.epochs, len(self.order), self.order.start)
        self.model.train()
        saved = time.monotonic()
        for batch in self.loader:
            loss = self._step(batch)
            bar.step(loss, self.schedule.get_last_lr()[0])
            if progress.step % 20 == 0:
                self._log({"loss": loss})
            if asked:
                checkpoint.save_checkpoint(self.accelerator, self.course.work, progress.step)
                raise StoppedError(
                    f"stopped at step {progress.step}, which is saved; the same command goes on "
                    "from there"
                )
            if time.monotonic() - saved > 60 * self.course.minutes:
                checkpoint.save_checkpoint(self.accelerator, self.course.work, progress.step)
                saved = time.monotonic()

    def _step(self, batch: dict[str, torch.Tensor]) -> float:
        """Optimise once; what is random is a function of seed and step alone."""
        seeds = np.random.default_rng([self.course.seed, self.progress.step])
        torch.manual_seed(int(seeds.integers(2**62)))
        with self.accelerator.autocast():
            loss = self.model(**batch).loss
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.course.optimiser.clip)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.progress.step += 1
        return float(loss.detach())

    def _validate(self, bar: EpochBar) -> None:
        progress, course = self.progress, self.course
        progress.epoch += 1
        loss = self._loss()
        if progress.best is None or -loss > progress.best:
            progress.best, progress.best_epoch = -loss, progress.epoch
            _save_best_lm(self.accelerator.unwrap_model(self.model), course.work)
        waited = progress.epoch - progress.best_epoch
        progress.finished = waited >= course.patience or progress.epoch >= course.epochs
        self._log({"validation": {"loss": loss}})
        bar.end(progress.epoch, {"loss": loss}, improved=not waited)

    @torch.inference_mode()
    def _loss(self) -> float:
        """Return the mean loss over the tokens of the completions that were held back."""
        self.model.eval()
        total, num_tokens = 0.0, 0
        order = np.argsort([self.val.length(index) for index in range(len(self.val))])
        for start in range(0, len(order), self.course.batch_size):
            batch = self.val.batch(order[start : start + self.course.batch_size].tolist())
            counted = int(torch.ne(batch["labels"], IGNORED_LABEL).sum())
            batch = {name: each.to(self.accelerator.device) for name, each in batch.items()}
            with self.accelerator.autocast():
                total += float(self.model(**batch).loss) * counted
            num_tokens += counted
        return total / num_tokens

    def _keep_what_learns(self, _: Any, weights: list[dict[str, Any]], __: str) -> None:
        """Leave out of a checkpoint what never changes, and the second names of tied weights."""
        learns = _list_learning(self.accelerator.unwrap_model(self.model))
        for state in weights:
            for name in set(state) - set(learns):
                del state[name]

    def _log(self, values: dict[str, Any]) -> None:
        where = {"stage": "student", "epoch": self.progress.epoch, "step": self.progress.step}
        with (self.course.work / _METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**where, **values}) + "\n")


def _load_model(course: IntentionLMRun) -> Any:
    """Return the model with what is to learn of it; frozen weights are halved on a GPU."""
    torch.manual_seed(course.seed)
    fast = choose_precision() == "bf16" and not course.full
    model = load_language_model(course.model, dtype=torch.bfloat16 if fast else torch.float32)
    if course.full:
        return model
    kind = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    lora = LoraConfig(
        r=course.rank,
        lora_alpha=2 * course.rank,
        lora_dropout=0.05,
        target_modules="all-linear",
        task_type=kind,
    )
    with warnings.catch_warnings():  # peft reads an attribute that transformers has renamed
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return get_peft_model(model, lora)


def _tokenise_part(
    part: list[CompletionExample], words: Any, model: Any, course: IntentionLMRun
) -> CompletionDataset:
    return CompletionDataset(
        part,
        words,
        prompt_tokens=course.prompt_tokens,
        answer_tokens=course.answer_tokens,
        encoder_decoder=model.config.is_encoder_decoder,
    )


def _save_best_lm(model: nn.Module, folder: Path) -> None:
    state = {name: each.detach().contiguous() for name, each in _list_learning(model).items()}
    with manifest.write_atomically(folder / checkpoint.BEST_WEIGHTS) as beside:
        save_file(state, beside)


def _list_learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what learns by name; a weight that has two names comes under the first."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def _continue_or_start(course: IntentionLMRun, data: str) -> None:
    """Claim the working folder for this run, or find that it already is this run's."""
    path = course.work / "run.json"
    facts = {**asdict(course), "data": data, "versions": manifest.collect_versions()}
    facts = {k: v for k, v in facts.items() if k not in ("out", "minutes", "overwrite")}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = [name for name in facts if before.get(name) != facts[name]]
        if not differ:
            Console(stderr=True).print(f"going on with the run in {course.work}", highlight=False)
            return
        if not course.overwrite:
            raise DistilError(
                f"{course.work} holds a run with other {' and '.join(differ)}; "
                "name another --out, or add --overwrite"
            )
        manifest.empty_folder(course.work)
    manifest.write_json(path, facts)


def _collect_facts(
    course: IntentionLMRun,
    data: str,
    train: list[CompletionExample],
    val: list[CompletionExample],
    progress: StageProgress,
) -> IntentionLMFacts:
    assert progress.best is not None
    return IntentionLMFacts(
        base=course.model,
        rank=None if course.full else course.rank,
        prompt_tokens=course.prompt_tokens,
        answer_tokens=course.answer_tokens,
        seed=course.seed,
        data=data,
        train=train,
        val=val,
        epoch=progress.best_epoch,
        loss=-progress.best,
        metrics=course.work / _METRICS,
    )
