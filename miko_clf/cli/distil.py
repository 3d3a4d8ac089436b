"""The commands that ask LLMs what posts intend: their options and what they call."""

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from miko_clf.cli.parser import Command, Parser, UsageError, require_options, write_skipped_posts


def _add_distil_options(parser: Parser) -> None:
    add = parser.add_option
    add("posts POSTS", Path, "file of posts, or a data folder")
    say = "file that holds every answer; made, or gone on with"
    add("--kb FILE.sqlite", Path, say, required=True)
    say = (
        "intentions (MIKO: description, key information, ten intentions), rationale (Mr.Harm: why "
        "the label holds, written knowing it), or debate (one rationale a label, made without it)"
    )
    add("--task", ("intentions", "rationale", "debate"), say, "intentions")
    say = "intentions in one structured call, in MIKO's three stages, or a call for each relation"
    add("--plan", ("one-call", "per-stage", "per-relation"), say, "one-call")
    add("--labels A,B", str, "sides of a debate (default: the posts' labels)")
    say = "ask anew, and keep the N-th set of answers beside the others"
    add("--sample N", NonNegativeInt, say, 0)
    say = "split of a data folder, may be repeated (default: all; for rationales train and val)"
    add("--split S", list, say)
    add("--limit N", PositiveInt, "read the first N posts only")
    add("--skip-bad", bool, "pass over bad posts and list them in a file")
    add("--dry-run", bool, "probe, estimate, and ask nothing")
    add_server_options(parser)
    say = "model that describes the pictures (default: --model is shown them itself)"
    add("--vision-model NAME", str, say)
    add = parser.start_group("batches")
    say = (
        "send nothing: write calls as JSONL of OpenAI's Batch API (which `vllm run-batch` reads) "
        "to DIR, and read the answers found there; repeat until nothing is left"
    )
    add("--batch DIR", Path, say)
    add("--submit", bool, "with --batch: hand the files to the server's API")


def add_server_options(parser: Parser) -> None:
    """Add what a server is asked with, shared by all commands that ask one."""
    add = parser.start_group("whom to ask")
    say = (
        "an OpenAI-compatible server, such as http://127.0.0.1:8000/v1, or local:DIR of what "
        "distil train-lm has written"
    )
    add("--server URL", str, say)
    add("--model NAME", str, "model to ask")
    add("--fallback NAME", list, "model to ask what another refused, may be repeated, in order")
    say = "environment variable of the key (default: MIKO_API_KEY, else OPENAI_API_KEY)"
    add("--key-name VAR", str, say)
    add("--no-probe", bool, "trust the server to do all that it is asked")
    add = parser.start_group("what it is sent")
    add("--no-pictures", bool, "send no picture")
    say = "keep @names, addresses and telephone numbers (default: masked unless the server is near)"
    add("--keep-names", bool, say)
    add("--temperature X", NonNegativeFloat, "(default: 0.7, rationales 0)")
    add("--top-p X", PositiveFloat, "", 1.0)
    add("--seed N", int, "seed that the server is sent")
    add("--max-tokens N", PositiveInt, "longest answer (default: by stage)")
    add = parser.start_group("how fast, and for how much")
    add("--in-flight N", PositiveInt, "calls under way at most", 64)
    add("--rpm X", PositiveFloat, "calls a minute (default: what it bears)")
    add("--deadline X", PositiveFloat, "seconds for one answer", 120.0)
    add("--patience X", NonNegativeFloat, "seconds without any answer that end the run", 180.0)
    say = "YAML of dollars a million tokens, `model: {input: X, cached: X, output: X, batch: 0.5}`"
    add("--prices FILE", Path, say)
    say = "stop before the knowledge base has cost more, earlier runs included; exits with 3"
    add("--budget-usd X", PositiveFloat, say)


def _run_distil(args: Namespace, line: str) -> None:
    """Ask an LLM what the authors of posts intend, once, and keep every answer.

    First probes what the server can do, and says what the run will cost. Whatever the file holds
    already is not asked again, so a run that was stopped goes on when it is given again. What is
    in the file is seen with kb stats and kb show, and comes out with kb export.
    """
    from miko_clf.data.readers import SkipReport
    from miko_clf.distil.run import distil_posts

    if args.submit and not args.batch:
        raise UsageError("--submit hands over the files of --batch DIR, which is not given")
    local = (args.server or "").startswith("local:")
    if local and (args.task != "intentions" or args.vision_model or args.model):
        raise UsageError("local: answers --task intentions alone, and takes no --model")
    offline = bool(args.batch and not args.submit and not args.server)
    report = SkipReport() if args.skip_bad else None
    is_near, model = (True, args.model) if offline and args.model else resolve_model(args)
    plan = read_plan(
        args,
        args.task,
        model,
        is_near=is_near,
        order="student" if local else args.plan,
        vision=args.vision_model,
        labels=tuple(part for part in (args.labels or "").split(",") if part),
        sample=args.sample,
    )
    if args.batch:
        tally = _run_batches(args, plan, report, offline)
    else:
        tally = distil_posts(
            args.posts, args.kb, plan, open_client(args), read_run_terms(args), report=report
        )
    if args.dry_run:
        return
    print_tally(tally)
    write_skipped_posts(report, args.kb.with_name(f"{args.kb.name}.skipped.json"))
    kb = shlex.quote(str(args.kb))
    if tally.unread:
        print(f"{tally.unread:,} posts wait for answers; the same command reads them")
    else:
        print(f"next: miko-clf kb stats {kb}, then miko-clf kb export {kb} posts.jsonl")


def _run_batches(args: Namespace, plan: Any, report: Any, offline: bool) -> Any:
    from miko_clf.distil.batch import distil_in_batches
    from miko_clf.distil.client import TeacherClient

    client = None if offline else open_client(args)
    if client is not None and not isinstance(client, TeacherClient):
        raise UsageError("--batch is for servers; an intention LM in a folder is asked at once")
    tally, written = distil_in_batches(
        args.posts,
        args.kb,
        plan,
        args.batch,
        client,
        read_run_terms(args),
        send=args.submit,
        report=report,
    )
    for path in written.waiting:
        print(f"to be answered: {path}")
    return tally


def read_plan(args: Namespace, task: Any, model: str, *, is_near: bool, **more: Any) -> Any:
    """Return how a task is carried out: what all commands that ask a server take, and `more`."""
    from miko_clf.distil.jobs import JobPlan

    return JobPlan(
        task,
        model,
        fallbacks=tuple(args.fallback),
        pictures=not args.no_pictures,
        masked=not (is_near or args.keep_names),
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
        max_tokens=args.max_tokens,
        **more,
    )


def resolve_model(args: Namespace) -> tuple[bool, str]:
    """Return whether the server is on this network, and the name of the model."""
    from miko_clf.distil import find_model, is_local
    from miko_clf.distil.request import is_private_server

    if not is_local(args.server or ""):
        require_options(args, "server", "model")
    return is_private_server(args.server), find_model(args.server, args.model)


def open_client(args: Namespace) -> Any:
    """Return whatever answers calls: a server, or an intention LM in a folder."""
    from miko_clf.distil import open_sender

    return open_sender(
        args.server,
        ceiling=args.in_flight,
        per_minute=args.rpm,
        deadline=args.deadline,
        patience=args.patience,
        key_name=args.key_name,
    )


def read_run_terms(args: Namespace) -> Any:
    """Return the terms of a run; what a command does not take is as if it was not given."""
    from miko_clf.distil.budget import read_prices
    from miko_clf.distil.run import RunTerms

    return RunTerms(
        prices=read_prices(args.prices) if args.prices else {},
        budget=args.budget_usd,
        width=args.in_flight,
        splits=tuple(args.get("split", ())),
        limit=args.get("limit"),
        probe=not args.no_probe,
        dry=args.get("dry_run", False),
    )


def print_tally(tally: Any) -> None:
    """Print what a run did."""
    ends = ", ".join(f"{count:,} {status}" for status, count in sorted(tally.posts.items()))
    print(f"{tally.done:,} posts: {ends or 'none'}")
    for reason, count in tally.reasons.most_common(5):
        print(f"  {count:,} x {reason}")
    cached = f", {tally.cached / tally.prompt:.0%} of them cached" if tally.prompt else ""
    print(
        f"{tally.paid:,} calls answered ({tally.reused:,} answers were there already, "
        f"{tally.lost:,} lost on the way), {tally.prompt:,} prompt tokens{cached}, "
        f"{tally.completion:,} completion tokens"
    )


def _add_train_lm_options(parser: Parser) -> None:
    add = parser.add_option
    add("source KB", Path, "knowledge base, or file of posts with intentions")
    say = "generator to fine-tune, encoder-decoder or causal: a folder or a name on the hub"
    add("--model NAME", str, say, required=True)
    add("--out DIR", Path, "folder of the tuned generator", required=True)
    add("--full", bool, "tune all weights (default: LoRA)")
    add("--rank N", PositiveInt, "of LoRA", 16)
    add("--epochs N", PositiveInt, "at most", 5)
    add("--patience N", PositiveInt, "epochs without a lower validation loss that end it", 2)
    add("--batch-size N", PositiveInt, "", 16)
    say = "peak learning rate (default: 3e-4 for LoRA, 5e-5 for all weights)"
    add("--rate X", PositiveFloat, say)
    add("--prompt-tokens N", PositiveInt, "tokens of a post that are read", 256)
    add("--answer-tokens N", PositiveInt, "tokens of an intention that are written", 64)
    say = "do not teach intentions that judges find less plausible"
    add("--min-plausibility X", ClosedUnitInterval, say, 0.0)
    add("--seed N", int, "", 0)
    add("--minutes X", PositiveFloat, "minutes between checkpoints within an epoch", 10.0)
    add("--overwrite", bool, "replace what --out holds, or checkpoints of it")


def _run_train_lm(args: Namespace, line: str) -> None:
    """Fine-tune a small generator on what an LLM wrote, to write intentions locally.

    What it writes answers in place of a server: miko-clf distil POSTS --server local:DIR --kb
    FILE.sqlite.
    """
    from miko_clf.train.intention_lm import IntentionLMRun, train_intention_lm

    run = IntentionLMRun(
        args.model,
        args.out,
        full=args.full,
        rank=args.rank,
        epochs=args.epochs,
        batch_size=args.batch_size,
        rate=args.rate,
        patience=args.patience,
        prompt_tokens=args.prompt_tokens,
        answer_tokens=args.answer_tokens,
        plausible=args.min_plausibility,
        seed=args.seed,
        minutes=args.minutes,
        overwrite=args.overwrite,
    )
    train_intention_lm(_read_training_posts(args.source), run)
    out = shlex.quote(str(args.out))
    print(f"intention LM: {args.out}")
    print(f"next:         miko-clf distil POSTS --server local:{out} --kb local.sqlite")


def _read_training_posts(path: Path) -> Any:
    """Return the posts of a knowledge base, or of a file of posts."""
    from miko_clf.data.readers import TABLE_SUFFIXES, read_posts
    from miko_clf.distil.kb.query import iterate_knowledge
    from miko_clf.distil.kb.store import open_for_reading

    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_posts(path)
    return (known.filled() for known in iterate_knowledge(open_for_reading(path)))


DISTIL_COMMANDS: dict[str, Command] = {
    "distil": Command(
        "POSTS --server URL --model NAME --kb FILE.sqlite [--task T] [options]",
        "posts.jsonl --server http://127.0.0.1:8000/v1 --model qwen3-vl --kb kb.sqlite",
        _add_distil_options, _run_distil, "distil",
    ),
    "distil train-lm": Command(
        "KB --model NAME --out DIR [options]",
        "kb.sqlite --model google/flan-t5-small --out intention-lm",
        _add_train_lm_options, _run_train_lm, "train,distil",
    ),
}  # fmt: skip
