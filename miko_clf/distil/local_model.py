"""An intention LM on this machine, asked like a server: what it was taught, its answers."""

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from miko_clf.data.post import Relation
from miko_clf.distil import LOCAL_SCHEME
from miko_clf.distil.relations import RELATION_STEMS
from miko_clf.distil.request import Request, Sampling, load_prompt
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.distil.schemas import IntentionAnswer
from miko_clf.errors import DistilError

INTENTION_LM_FILE = "student.json"
INTENTION_LM_PROMPT = "student"


class IntentionLmRecord(BaseModel):
    """How an intention LM came about. `prompt`, `data` and `weights` are sha256 in hexadecimal.

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
    """Return the question to an intention LM; its last line is the stem to go on from."""
    stem = RELATION_STEMS[relation]
    return load_prompt(INTENTION_LM_PROMPT).fill(text=text, description=description, stem=stem)


def read_intention_lm(folder: Path) -> IntentionLmRecord:
    """Return what is known of an intention LM; raises `DistilError` where the folder holds none."""
    path = folder / INTENTION_LM_FILE
    try:
        record = IntentionLmRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        raise DistilError(
            f"{folder}: not an intention LM, it holds no {INTENTION_LM_FILE}; "
            "`miko-clf distil train-lm` writes one"
        ) from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise DistilError(f"{path}: not readable: {error}") from None
    if record.prompt != load_prompt(INTENTION_LM_PROMPT).sha256:
        raise DistilError(
            f"{folder}: was taught another question than this program asks; teach it again"
        )
    return record


logging.disable_progress_bar()


class LocalModel:
    """The folder of an intention LM in the place of a server.

    What arrives while a batch is being written goes into the next, `at_once` requests at most. An
    answer is a function of its request alone, whatever it was answered together with, up to the
    rounding of the device. Raises `DistilError` where the folder holds no usable model.
    """

    host = "local"

    def __init__(self, folder: Path, *, at_once: int = 64) -> None:
        self.record = read_intention_lm(folder)
        self.server = f"{LOCAL_SCHEME}{folder}"
        self.name = self.record.model
        self.at_once = at_once
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_language_tokenizer(str(folder))
        self.language_model = _load_ready_model(folder, self.tokenizer).to(self.device)
        self.num_batches = 0
        self._waiting: list[tuple[Request, asyncio.Future[Response]]] = []
        self._busy: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intention-lm")

    async def send(self, request: Request) -> Response:
        """Return the model's answer; raises `DistilError` where it was never taught to answer."""
        if request.prompt.name != INTENTION_LM_PROMPT or request.answer is not IntentionAnswer:
            raise DistilError(
                f"{self.server}: an intention LM completes the sentences of one post and answers "
                "nothing else; ask it for intentions in the order 'student'"
            )
        if request.model != self.name:
            raise DistilError(f"{self.server}: is {self.name}, there is no model {request.model!r}")
        if request.stage not in self.record.relations:
            reason = f"the intention LM was not taught {request.stage}"
            return Response(status="failed", reason=reason, host=self.host)
        done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, done))
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(self._drain())
        return await done

    async def close(self) -> None:
        """Wait for the batch under way."""
        await asyncio.to_thread(self._thread.shutdown)

    def write(self, requests: Sequence[Request]) -> list[Response]:
        """Return the answers to requests, written together, or in halves where memory is short."""
        try:
            return self._write(requests)
        except torch.OutOfMemoryError:
            if len(requests) == 1:
                raise DistilError(f"{self.server}: {self.device} has no room for it") from None
        self.at_once = half = len(requests) // 2
        return [*self.write(requests[:half]), *self.write(requests[half:])]

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[: self.at_once], self._waiting[self.at_once :]
            try:
                requests = [request for request, _ in batch]
                responses = await loop.run_in_executor(self._thread, self.write, requests)
            except Exception as error:  # whoever waits is told, and the next batch is tried
                for _, done in batch:
                    if not done.cancelled():
                        done.set_exception(error)
                continue
            for (_, done), response in zip(batch, responses, strict=True):
                if not done.cancelled():
                    done.set_result(response)

    @torch.inference_mode()
    def _write(self, requests: Sequence[Request]) -> list[Response]:
        started = time.monotonic()
        self.num_batches += 1
        prompts = self.tokenizer(
            [request.turns[1].text for request in requests],
            truncation=True,
            max_length=self.record.prompt_tokens,
            padding=True,
            return_tensors="pt",
        ).to(self.device)
        written = self.language_model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            max_new_tokens=max(request.sampling.max_tokens for request in requests),
            logits_processor=transformers.LogitsProcessorList(
                [_DrawProcessor(requests, self.device)]
            ),
        )
        start = 1 if self.record.encoder_decoder else prompts["input_ids"].shape[1]
        seconds = (time.monotonic() - started) / len(requests)
        lengths = prompts["attention_mask"].sum(1).tolist()
        return [
            self._respond(request, row[start:].tolist(), length)._replace(seconds=seconds)
            for request, row, length in zip(requests, written, lengths, strict=True)
        ]

    def _respond(self, request: Request, row: list[int], num_asked: int) -> Response:
        """Return what was written up to its end, or cut off where the request allows no more."""
        end = self.tokenizer.eos_token_id
        row = row[: request.sampling.max_tokens]
        has_ended = end in row
        row = row[: row.index(end) + 1] if has_ended else row
        text = self.tokenizer.decode(row, skip_special_tokens=True).strip()
        raw = json.dumps({"intention": text}, ensure_ascii=False)
        return Response(
            raw=raw if has_ended else raw.removesuffix('"}'),
            finish="stop" if has_ended else "length",
            usage=TokenUsage(num_asked, 0, len(row)),
            model=self.name,
            host=self.host,
        )


class _DrawProcessor(transformers.LogitsProcessor):
    """Makes of a greedy search a draw for every row, each with a generator of its own.

    The largest of logits plus Gumbel noise is a sample of their softmax (Gumbel, 1954), so rows
    of different temperature, top-p and seed go through one batch.
    """

    def __init__(self, requests: Sequence[Request], device: torch.device) -> None:
        self.samplings: list[Sampling] = [request.sampling for request in requests]
        warm = [row for row, sampling in enumerate(self.samplings) if sampling.temperature]
        self.rows = torch.tensor(warm, dtype=torch.long, device=device)
        self.generators = []
        for row in warm:
            # The key holds question, sampling, seed and sample: all that may change an answer.
            seed = int.from_bytes(requests[row].key[:8], "big", signed=True)
            self.generators.append(torch.Generator(device).manual_seed(seed))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (row, word) whose largest in each row is what the row says next."""
        if not self.generators:
            return scores
        chosen = [self.samplings[row] for row in self.rows.tolist()]
        warmth = scores.new_tensor([draw.temperature for draw in chosen], dtype=torch.float32)
        share = scores.new_tensor([draw.top_p for draw in chosen], dtype=torch.float32)
        logits = _keep_nucleus(scores[self.rows].float() / warmth[:, None], share)
        draws = [torch.empty_like(logits[0]).exponential_(generator=g) for g in self.generators]
        noise = torch.stack(draws)
        drawn = scores.float()
        drawn[self.rows] = logits - noise.clamp_min(1e-30).log()
        return drawn


def load_language_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer that cuts a long question at its beginning, where the stem is not.

    Raises `DistilError` where there is none, or where it knows no end of a text.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, truncation_side="left")
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DistilError(f"{name}: no language model with a tokenizer: {error}") from None
    if tokenizer.eos_token_id is None:
        raise DistilError(f"{name}: its tokenizer has no end-of-text token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right" if config.is_encoder_decoder else "left"
    return tokenizer


def load_language_model(name: str, **options: Any) -> PreTrainedModel:
    """Return an encoder-decoder or a causal model, as its configuration says; or `DistilError`."""
    try:
        config = AutoConfig.from_pretrained(name)
        if config.is_encoder_decoder:
            return transformers.AutoModelForSeq2SeqLM.from_pretrained(name, **options)
        return transformers.AutoModelForCausalLM.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise DistilError(f"{name}: no language model that can write: {error}") from None


def _load_ready_model(folder: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    model = load_language_model(str(folder), dtype=torch.bfloat16 if fast else torch.float32).eval()
    start = model.generation_config.decoder_start_token_id
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    # Nothing of how the base model was wont to be asked (beams, lengths, warmth) is carried over.
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
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
