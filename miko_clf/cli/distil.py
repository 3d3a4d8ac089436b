"""The commands that ask LLMs what posts intend: their options and what they call."""

import shlex
from collections.abc import Callable, Mapping
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

from miko_clf.cli.parser import Command, Parser, UsageError

_JOB_KINDS = ("intentions", "rationale", "debate")
_CALL_ORDERS = ("one-call", "per-stage", "per-relation")


def _add_distil_options(parser: Parser) -> None:
    """Add what `distil` takes."""
    add = parser.add_argument
    add("posts", type=Path, metavar="POSTS", help="file of posts, or a data folder")
    _add_kb_option(parser, "file that holds every answer; made, or gone on with")
    say = (
        "intentions (MIKO: description, key information, ten intentions), rationale (Mr.Harm: why "
        "the label holds, written knowing it), or debate (one rationale a label, made without it)"
    )
    add("--task", choices=_JOB_KINDS, default="intentions", help=f"{say} (default: %(default)s)")
    add_server_options(parser)
    say = "model that describes the pictures (default: --model is shown them itself)"
    add("--vision-model", type=str, metavar="NAME", help=say)
    add("--no-pictures", action="store_true", help="send no picture")
    say = "intentions in one structured call, in MIKO's three stages, or a call for each relation"
    add("--plan", choices=_CALL_ORDERS, default="one-call", help=f"{say} (default: %(default)s)")
    add("--labels", type=str, metavar="A,B", help="sides of a debate (default: the posts' labels)")
    say = "keep @names, addresses and telephone numbers (default: masked unless the server is near)"
    add("--keep-names", action="store_true", help=say)
    say = "ask anew, and keep the N-th set of answers beside the others (default: %(default)s)"
    add("--sample", type=NonNegativeInt, default=0, metavar="N", help=say)
    say = "split of a data folder, may be repeated (default: all; for rationales train and val)"
    add("--split", action="append", default=[], metavar="S", help=say)
    add("--limit", type=PositiveInt, metavar="N", help="read the first N posts only")
    add("--skip-bad", action="store_true", help="pass over bad posts and list them in a file")
    add("--dry-run", action="store_true", help="probe, estimate, and ask nothing")
    _add_batch_options(parser)


def _add_intention_lm_options(parser: Parser) -> None:
    """Add what `distil student` takes."""
    add = parser.add_argument
    say = "knowledge base, or file of posts with intentions"
    add("source", type=Path, metavar="KB", help=say)
    say = "generator to fine-tune, encoder-decoder or causal: a folder or a name on the hub"
    add("--model", type=str, required=True, metavar="NAME", help=say)
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the student")
    add("--full", action="store_true", help="tune all weights (default: LoRA)")
    add("--rank", type=PositiveInt, default=16, metavar="N", help="of LoRA (default: %(default)s)")
    add("--epochs", type=PositiveInt, default=5, metavar="N", help="at most (default: %(default)s)")
    say = "epochs without a lower validation loss that end it (default: %(default)s)"
    add("--patience", type=PositiveInt, default=2, metavar="N", help=say)
    add("--batch-size", type=PositiveInt, default=16, metavar="N", help="(default: %(default)s)")
    say = "peak learning rate (default: 3e-4 for LoRA, 5e-5 for all weights)"
    add("--rate", type=PositiveFloat, metavar="X", help=say)
    say = "tokens of a post that are read (default: %(default)s)"
    add("--prompt-tokens", type=PositiveInt, default=256, metavar="N", help=say)
    say = "tokens of an intention that are written (default: %(default)s)"
    add("--answer-tokens", type=PositiveInt, default=64, metavar="N", help=say)
    say = "do not teach intentions that judges find less plausible (default: %(default)s)"
    add("--min-plausibility", type=ClosedUnitInterval, default=0.0, metavar="X", help=say)
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    say = "minutes between checkpoints within an epoch (default: %(default)s)"
    add("--minutes", type=PositiveFloat, default=10.0, metavar="X", help=say)
    add("--overwrite", action="store_true", help="replace a student, or another run's checkpoints")


def add_server_options(parser: Parser) -> None:
    """Add what a server is asked with, shared by all commands that ask one."""
    add = parser.add_argument
    say = "an OpenAI-compatible server, such as http://127.0.0.1:8000/v1, or local:DIR of a student"
    add("--server", type=str, metavar="URL", help=say)
    add("--model", type=str, metavar="NAME", help="model to ask")
    say = "model to ask what another refused, may be repeated, in order"
    add("--fallback", action="append", default=[], metavar="NAME", help=say)
    say = "environment variable of the key (default: MIKO_API_KEY, else OPENAI_API_KEY)"
    add("--key-name", type=str, metavar="VAR", help=say)
    say = "calls under way at most (default: %(default)s)"
    add("--in-flight", type=PositiveInt, default=64, metavar="N", help=say)
    add("--rpm", type=PositiveFloat, metavar="X", help="calls a minute (default: what it bears)")
    say = "seconds for one answer (default: %(default)s)"
    add("--deadline", type=PositiveFloat, default=120.0, metavar="X", help=say)
    say = "seconds without any answer that end the run (default: %(default)s)"
    add("--patience", type=NonNegativeFloat, default=180.0, metavar="X", help=say)
    add("--temperature", type=NonNegativeFloat, metavar="X", help="(default: 0.7, rationales 0)")
    add("--top-p", type=PositiveFloat, default=1.0, metavar="X", help="(default: %(default)s)")
    add("--seed", type=int, metavar="N", help="seed that the server is sent")
    add("--max-tokens", type=PositiveInt, metavar="N", help="longest answer (default: by stage)")
    say = "YAML of dollars a million tokens, `model: {input: X, cached: X, output: X, batch: 0.5}`"
    add("--prices", type=Path, metavar="FILE", help=say)
    say = "stop before the knowledge base has cost more, earlier runs included; exits with 3"
    add("--budget-usd", type=PositiveFloat, metavar="X", help=say)
    add("--no-probe", action="store_true", help="trust the server to do all that it is asked")


def _add_batch_options(parser: Parser) -> None:
    add = parser.add_argument
    say = (
        "send nothing: write calls as JSONL of OpenAI's Batch API (which `vllm run-batch` reads) "
        "to DIR, and read the answers found there; repeat until nothing is left"
    )
    add("--batch", type=Path, metavar="DIR", help=say)
    add("--submit", action="store_true", help="with --batch: hand the files to the server's API")


def _add_kb_option(parser: Parser, say: str) -> None:
    parser.add_argument("--kb", type=Path, required=True, metavar="FILE.sqlite", help=say)


DISTIL_COMMANDS: Mapping[str, Command] = {
    "distil": Command(
        "Ask an LLM what the authors of posts intend, once, and keep every answer",
        "POSTS --server URL --model NAME --kb FILE.sqlite [--task T] [options]",
        "posts.jsonl --server http://127.0.0.1:8000/v1 --model qwen3-vl --kb kb.sqlite",
        _add_distil_options,
        "distil",
    ),
    "distil student": Command(
        "Fine-tune a small generator on what an LLM wrote, to write intentions locally",
        "KB --model NAME --out DIR [options]",
        "kb.sqlite --model google/flan-t5-small --out student",
        _add_intention_lm_options,
        "train,distil",
    ),
}


def _run_distil(given: Namespace, line: str) -> None:
    from miko_clf.data.readers import SkipReport
    from miko_clf.distil.jobs import JobPlan
    from miko_clf.distil.run import distil_posts

    if given.submit and not given.batch:
        raise UsageError("--submit hands over the files of --batch DIR, which is not given")
    local = (given.server or "").startswith("local:")
    if local and (given.task != "intentions" or given.vision_model or given.model):
        raise UsageError("a student answers --task intentions alone, and takes no model's name")
    offline = bool(given.batch and not given.submit and not given.server)
    report = SkipReport() if given.skip_bad else None
    is_near, model = (True, given.model) if offline and given.model else resolve_model(given)
    plan = JobPlan(
        given.task,
        model,
        order="student" if local else given.plan,
        vision=given.vision_model,
        fallbacks=tuple(given.fallback),
        labels=tuple(part for part in (given.labels or "").split(",") if part),
        pictures=not given.no_pictures,
        masked=not (is_near or given.keep_names),
        sample=given.sample,
        temperature=given.temperature,
        top_p=given.top_p,
        seed=given.seed,
        max_tokens=given.max_tokens,
    )
    if given.batch:
        tally = _run_batches(given, plan, report, offline)
    else:
        tally = distil_posts(
            given.posts, given.kb, plan, open_client(given), read_run_terms(given), report=report
        )
    if given.dry_run:
        return
    print_tally(tally)
    write_skipped_beside(report, given.kb)
    kb = shlex.quote(str(given.kb))
    if tally.unread:
        print(f"{tally.unread:,} posts wait for answers; the same command reads them")
    else:
        print(f"next: miko-clf kb stats {kb}, then miko-clf kb export {kb} posts.jsonl")


def _run_intention_lm(given: Namespace, line: str) -> None:
    from miko_clf.train.intention_lm import IntentionLMRun, train_intention_lm
    from miko_clf.train.loop import StoppedError

    course = IntentionLMRun(
        given.model,
        given.out,
        full=given.full,
        rank=given.rank,
        epochs=given.epochs,
        batch_size=given.batch_size,
        rate=given.rate,
        patience=given.patience,
        prompt_tokens=given.prompt_tokens,
        answer_tokens=given.answer_tokens,
        plausible=given.min_plausibility,
        seed=given.seed,
        minutes=given.minutes,
        overwrite=given.overwrite,
    )
    try:
        train_intention_lm(_read_training_posts(given.source), course)
    except StoppedError as error:
        raise KeyboardInterrupt(str(error)) from None
    out = shlex.quote(str(given.out))
    print(f"student: {given.out}")
    print(f"next:    miko-clf distil POSTS --server local:{out} --kb local.sqlite")


def _read_training_posts(path: Path) -> Any:
    """Return the posts of a knowledge base, or of a file of posts."""
    from miko_clf.data.readers import TABLE_SUFFIXES, read_posts
    from miko_clf.distil.kb.query import iterate_knowledge
    from miko_clf.distil.kb.store import open_for_reading

    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_posts(path)
    return (known.filled() for known in iterate_knowledge(open_for_reading(path)))


def _run_batches(given: Namespace, plan: Any, report: Any, offline: bool) -> Any:
    from miko_clf.distil.batch import distil_in_batches
    from miko_clf.distil.client import TeacherClient

    asked = None if offline else open_client(given)
    if asked is not None and not isinstance(asked, TeacherClient):
        raise UsageError("--batch is for servers; a student in a folder is asked at once")
    tally, written = distil_in_batches(
        given.posts,
        given.kb,
        plan,
        given.batch,
        asked,
        read_run_terms(given),
        send=given.submit,
        report=report,
    )
    for path in written.waiting:
        print(f"to be answered: {path}")
    return tally


def resolve_model(given: Namespace) -> tuple[bool, str]:
    """Return whether the server is on this network, and the name of the model."""
    from miko_clf.distil.local_model import read_intention_lm
    from miko_clf.distil.request import is_private_server

    local = (given.server or "").startswith("local:")
    missing = [name for name in ("server", "model") if given[name] is None]
    if missing and not (local and missing == ["model"]):
        names = ", ".join(f"--{name}" for name in missing)
        raise UsageError(f"the following arguments are required: {names}")
    if local:
        return True, read_intention_lm(Path(given.server.removeprefix("local:"))).model
    return is_private_server(given.server), given.model


def open_client(given: Namespace) -> Any:
    """Return whatever answers calls: a server, or a student in a folder."""
    from miko_clf.distil.client import TeacherClient

    if given.server.startswith("local:"):
        from miko_clf.distil.local_model import LocalModel

        return LocalModel(Path(given.server.removeprefix("local:")))
    return TeacherClient(
        given.server,
        ceiling=given.in_flight,
        per_minute=given.rpm,
        deadline=given.deadline,
        patience=given.patience,
        key_name=given.key_name,
    )


def read_run_terms(given: Namespace) -> Any:
    """Return the terms of a run; what a command does not take is as if it was not given."""
    from miko_clf.distil.budget import read_prices
    from miko_clf.distil.run import RunTerms

    return RunTerms(
        prices=read_prices(given.prices) if given.prices else {},
        budget=given.budget_usd,
        width=given.in_flight,
        splits=tuple(given.get("split", ())),
        limit=given.get("limit"),
        probe=not given.no_probe,
        dry=given.get("dry_run", False),
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


def write_skipped_beside(report: Any, beside: Path) -> None:
    """Write which posts were passed over beside a file, and say so."""
    if report is not None and len(report):
        path = beside.with_name(f"{beside.name}.skipped.json")
        report.write(path)
        print(f"{len(report)} bad posts were passed over, see {path}")


DISTIL_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "distil": _run_distil,
    "distil student": _run_intention_lm,
}
