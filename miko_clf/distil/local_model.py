"""An intention LM on this machine, asked like a server: what it was taught, its answers."""

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from miko_clf.data.post import Relation
from miko_clf.distil.relations import RELATION_STEMS
from miko_clf.distil.request import Request, Sampling, load_prompt
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.distil.schemas import IntentionAnswer
from miko_clf.errors import DistilError

INTENTION_LM_FILE = "student.json"
INTENTION_LM_PROMPT = "student"


class IntentionLmRecord(BaseModel):
    """How a student came about. `prompt`, `data` and `weights` are sha256 in hexadecimal.

    `rank` is that of LoRA, null where all weights were tuned. `loss` is the mean over the tokens
    of completions of posts that were held back. Lengths are in tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    base: str
    encoder_decoder: bool
    rank: int | None
    relations: tuple[Relation, ...]
    prompt: str
    prompt_tokens: int
    answer_tokens: int
    data: str
    posts: dict[str, int]
    examples: dict[str, int]
    seed: int
    epoch: int
    loss: float
    weights: str
    versions: dict[str, str]

    @property
    def model(self) -> str:
        """The name under which its answers are kept: another training has another name."""
        return f"{Path(self.base).name}-student-{self.weights[:12]}"


def make_intention_question(text: str | None, description: str | None, relation: Relation) -> str:
    """Return what a student is asked; its last line is the stem that the answer goes on from."""
    return load_prompt(INTENTION_LM_PROMPT).ask(
        text=text, description=description, stem=RELATION_STEMS[relation]
    )


def read_intention_lm(folder: Path) -> IntentionLmRecord:
    """Return what is known of a student; raises `DistilError` where the folder holds none."""
    try:
        page = IntentionLmRecord.model_validate_json(
            (folder / INTENTION_LM_FILE).read_text(encoding="utf-8")
        )
    except OSError:
        raise DistilError(
            f"{folder}: not a student, it holds no {INTENTION_LM_FILE}; `miko-clf distil student` writes one"
        ) from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise DistilError(f"{folder / INTENTION_LM_FILE}: not readable: {error}") from None
    if page.prompt != load_prompt(INTENTION_LM_PROMPT).sha256:
        raise DistilError(
            f"{folder}: was taught another question than this program asks; teach it again"
        )
    return page


_SCHEME = "local:"
logging.disable_progress_bar()


class LocalModel:
    """A student's folder in the place of a server.

    What arrives while a batch is being written goes into the next, `at_once` calls at most. An
    answer is a function of its call alone, whatever it was answered together with, up to the
    rounding of the device. Raises `DistilError` where the folder holds no usable student.
    """

    host = "local"

    def __init__(self, folder: Path, *, at_once: int = 64, device: str | None = None) -> None:
        self.page = read_intention_lm(folder)
        self.server = f"{_SCHEME}{folder}"
        self.name = self.page.model
        self.at_once = at_once
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.words = load_language_tokenizer(str(folder))
        self.language_model = _load_ready_model(folder, self.words).to(self.device)
        self.num_batches = 0
        self._waiting: list[tuple[Request, asyncio.Future[Response]]] = []
        self._busy: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="student")

    async def send(self, call: Request) -> Response:
        """Return the student's answer; raises `DistilError` where it was never taught to answer."""
        if call.prompt.name != INTENTION_LM_PROMPT or call.answer is not IntentionAnswer:
            raise DistilError(
                f"{self.server}: a student completes the sentences of one post and answers nothing "
                "else; ask it for intentions in the order 'student'"
            )
        if call.model != self.name:
            raise DistilError(f"{self.server}: is {self.name}, there is no model {call.model!r}")
        if call.stage not in self.page.relations:
            reason = f"the student was not taught {call.stage}"
            return Response(status="failed", reason=reason, host=self.host)
        done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, done))
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(self._drain())
        return await done

    async def close(self) -> None:
        """Wait for the batch under way."""
        await asyncio.to_thread(self._thread.shutdown)

    def write(self, calls: Sequence[Request]) -> list[Response]:
        """Return the answers to calls, written together, or in halves where memory is short."""
        try:
            return self._write(calls)
        except torch.OutOfMemoryError:
            if len(calls) == 1:
                raise DistilError(f"{self.server}: {self.device} has no room for it") from None
        self.at_once = half = len(calls) // 2
        return [*self.write(calls[:half]), *self.write(calls[half:])]

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            now, self._waiting = self._waiting[: self.at_once], self._waiting[self.at_once :]
            try:
                calls = [call for call, _ in now]
                replies = await loop.run_in_executor(self._thread, self.write, calls)
            except Exception as error:  # whoever waits is told, and the next batch is tried
                for _, done in now:
                    if not done.cancelled():
                        done.set_exception(error)
                continue
            for (_, done), reply in zip(now, replies, strict=True):
                if not done.cancelled():
                    done.set_result(reply)

    @torch.inference_mode()
    def _write(self, calls: Sequence[Request]) -> list[Response]:
        started = time.monotonic()
        self.num_batches += 1
        asked = self.words(
            [call.turns[1].text for call in calls],
            truncation=True,
            max_length=self.page.prompt_tokens,
            padding=True,
            return_tensors="pt",
        ).to(self.device)
        written = self.language_model.generate(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            max_new_tokens=max(call.sampling.max_tokens for call in calls),
            logits_processor=LogitsProcessorList([_DrawProcessor(calls, self.device)]),
        )
        start = 1 if self.page.encoder_decoder else asked["input_ids"].shape[1]
        seconds = (time.monotonic() - started) / len(calls)
        lengths = asked["attention_mask"].sum(1).tolist()
        return [
            self._reply(call, row[start:].tolist(), length)._replace(seconds=seconds)
            for call, row, length in zip(calls, written, lengths, strict=True)
        ]

    def _reply(self, call: Request, row: list[int], num_asked: int) -> Response:
        """Return what was written up to its end, or cut off where the call allows no more."""
        end = self.words.eos_token_id
        row = row[: call.sampling.max_tokens]
        ended = end in row
        row = row[: row.index(end) + 1] if ended else row
        text = self.words.decode(row, skip_special_tokens=True).strip()
        raw = json.dumps({"intention": text}, ensure_ascii=False)
        return Response(
            raw=raw if ended else raw.removesuffix('"}'),
            finish="stop" if ended else "length",
            usage=TokenUsage(num_asked, 0, len(row)),
            model=self.name,
            host=self.host,
        )


class _DrawProcessor(LogitsProcessor):
    """Makes of a greedy search a draw for every row, each with a generator of its own.

    The largest of logits plus Gumbel noise is a sample of their softmax (Gumbel, 1954), so rows
    of different temperature, top-p and seed go through one batch.
    """

    def __init__(self, calls: Sequence[Request], device: torch.device) -> None:
        self.samplings: list[Sampling] = [call.sampling for call in calls]
        warm = [row for row, sampling in enumerate(self.samplings) if sampling.temperature]
        self.rows = torch.tensor(warm, dtype=torch.long, device=device)
        self.generators = []
        for row in warm:
            # The key holds question, sampling, seed and sample: all that may change an answer.
            seed = int.from_bytes(calls[row].key[:8], "big", signed=True)
            self.generators.append(torch.Generator(device).manual_seed(seed))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (row, word) whose largest in each row is what the row says next."""
        if not self.generators:
            return scores
        chosen = [self.samplings[row] for row in self.rows.tolist()]
        warmth = scores.new_tensor([each.temperature for each in chosen], dtype=torch.float32)
        share = scores.new_tensor([each.top_p for each in chosen], dtype=torch.float32)
        logits = _keep_nucleus(scores[self.rows].float() / warmth[:, None], share)
        noise = torch.stack(
            [torch.empty_like(logits[0]).exponential_(generator=each) for each in self.generators]
        )
        drawn = scores.float()
        drawn[self.rows] = logits - noise.clamp_min(1e-30).log()
        return drawn


def load_language_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer that cuts a long question at its beginning, where the stem is not.

    Raises `DistilError` where there is none, or where it knows no end of a text.
    """
    try:
        words = AutoTokenizer.from_pretrained(name, truncation_side="left")
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DistilError(f"{name}: no language model with a tokenizer: {error}") from None
    if words.eos_token_id is None:
        raise DistilError(f"{name}: its tokenizer has no end-of-text token")
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    words.padding_side = "right" if config.is_encoder_decoder else "left"
    return words


def load_language_model(name: str, **options: Any) -> PreTrainedModel:
    """Return an encoder-decoder or a causal model, as its configuration says.

    Raises `DistilError` where it is neither, or cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise DistilError(f"{name}: no language model that can write: {error}") from None


def _load_ready_model(folder: Path, words: PreTrainedTokenizerBase) -> PreTrainedModel:
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    model = load_language_model(str(folder), dtype=torch.bfloat16 if fast else torch.float32).eval()
    start = model.generation_config.decoder_start_token_id
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    # Nothing of how the base model was wont to be asked (beams, lengths, warmth) is carried over.
    model.generation_config = GenerationConfig(
        do_sample=False,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        decoder_start_token_id=start,
    )
    return model


def _keep_nucleus(logits: Tensor, share: Tensor) -> Tensor:
    """Return logits (row, word) without the words beyond the likeliest that make up `share`."""
    if bool((share >= 1).all()):
        return logits
    ordered, words = logits.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    ordered = ordered.masked_fill(before >= share[:, None], -torch.inf)
    return torch.empty_like(logits).scatter(1, words, ordered)
