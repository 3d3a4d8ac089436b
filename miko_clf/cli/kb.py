"""The commands on a knowledge base: their options and what they call."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from miko_clf.cli import distil
from miko_clf.cli.distil import add_server_options
from miko_clf.cli.parser import Command, Parser
from miko_clf.errors import MikoError

_ROW_KINDS = ("posts", "intentions")


def _add_import_options(parser: Parser) -> None:
    """Add what `kb import` takes."""
    _add_kb_argument(parser)
    add = parser.add_argument
    say = "released file of MIKO: the benchmark, intentions with key information, or descriptions"
    add("files", type=Path, nargs="+", metavar="FILE", help=say)
    say = "MMSD2.0 file, or folder of its splits, whose labels the posts are given"
    add("--labels", type=Path, metavar="PATH", help=say)
    add("--images", type=Path, metavar="DIR", help="where the pictures of the posts lie")


def _add_export_options(parser: Parser) -> None:
    """Add what `kb export` takes."""
    _add_kb_argument(parser)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help=".jsonl or .parquet file to write")
    say = "file whose posts are filled in, with all the columns that it has"
    add("--posts", type=Path, metavar="POSTS", help=say)
    say = "a row is a post, or an intention with its provenance (default: %(default)s)"
    add("--rows", choices=_ROW_KINDS, default="posts", help=say)
    _add_choice_options(parser)
    add("--skip-bad", action="store_true", help="pass over bad posts and list them in a file")


def _add_show_options(parser: Parser) -> None:
    """Add what `kb show` takes."""
    _add_kb_argument(parser)
    parser.add_argument("id", type=str, metavar="ID", help="id of a post")
    parser.add_argument("--raw", action="store_true", help="show the answers as they came")


def _add_stats_options(parser: Parser) -> None:
    """Add what `kb stats` takes."""
    _add_kb_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _add_judge_options(parser: Parser) -> None:
    """Add what `kb judge` takes."""
    _add_kb_argument(parser)
    add_server_options(parser)
    say = "share of the posts that are judged twice, to see how far the judge agrees with itself"
    add = parser.add_argument
    add("--repeat", type=ClosedUnitInterval, default=0.05, metavar="X", help=f"{say} (%(default)s)")
    add("--no-pictures", action="store_true", help="judge by the words and the description")
    say = "keep @names, addresses and telephone numbers (default: masked unless the server is near)"
    add("--keep-names", action="store_true", help=say)


def _add_critic_options(parser: Parser) -> None:
    """Add what `kb critic` takes."""
    _add_kb_argument(parser)
    add = parser.add_argument
    add("--text", type=str, required=True, metavar="NAME", help="text tower: a folder or a name")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the critic")
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")


def _add_weigh_options(parser: Parser) -> None:
    """Add what `kb weigh` takes."""
    _add_kb_argument(parser)
    say = "folder that kb critic has written"
    parser.add_argument("--critic", type=Path, required=True, metavar="DIR", help=say)


def _add_agree_options(parser: Parser) -> None:
    """Add what `kb agree` takes."""
    _add_kb_argument(parser)


def _add_annotate_options(parser: Parser) -> None:
    """Add what `kb annotate` takes."""
    _add_kb_argument(parser)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT.json", help="tasks to write; the interface goes beside them")
    say = "folder of pictures that Label Studio serves (default: that of the knowledge base)"
    add("--images", type=Path, metavar="DIR", help=say)
    add("--count", type=PositiveInt, metavar="N", help="posts, drawn by their ids (default: all)")
    say = "show annotators what judges said; they will lean to it"
    add("--prefill", action="store_true", help=say)


def _add_annotated_options(parser: Parser) -> None:
    """Add what `kb annotated` takes."""
    _add_kb_argument(parser)
    say = "JSON export of Label Studio"
    parser.add_argument("file", type=Path, metavar="FILE.json", help=say)


def _add_leak_options(parser: Parser) -> None:
    """Add what `kb leak` takes."""
    add = parser.add_argument
    add("posts", type=Path, metavar="POSTS", help="file of labelled posts, or a data folder")
    say = "split of a data folder, may be repeated (default: train, else all)"
    add("--split", action="append", default=[], metavar="S", help=say)


def _add_bench_options(parser: Parser) -> None:
    """Add what `kb bench` takes."""
    add = parser.add_argument
    add("reference", type=Path, metavar="REFERENCE", help="knowledge base of the reference")
    add("others", type=Path, nargs="+", metavar="KB", help="knowledge bases to compare with it")
    say = "folder of a text encoder for BERTScore (default: BERTScore is left out)"
    add("--encoder", type=str, metavar="NAME", help=say)
    add("--by-model", action="store_true", help="a row for each model of a knowledge base")
    say = "posts that are compared at most (default: %(default)s)"
    add("--limit", type=PositiveInt, default=1000, metavar="N", help=say)
    add("--out", type=Path, metavar="OUT.json", help="write the table here, and as .md beside it")


def _add_kb_argument(parser: Parser) -> None:
    parser.add_argument(
        "kb", type=Path, metavar="KB", help="knowledge base that distil has written"
    )


def _add_choice_options(parser: Parser) -> None:
    add = parser.add_argument
    say = "set of answers (default: the newest that ended well)"
    add("--sample", type=NonNegativeInt, metavar="N", help=say)
    say = "leave out intentions that judges find less plausible, from 0 to 1, and unjudged ones"
    add("--min-plausibility", type=ClosedUnitInterval, metavar="X", help=say)
    add("--without", action="append", default=[], metavar="REL", help="leave out a relation")
    say = "which to export where there are both"
    add("--rationale", choices=("rationale", "debate"), help=say)


_JUDGE_USAGE = "KB --server URL --model NAME [options]"
_JUDGE_EXAMPLE = "kb.sqlite --server http://127.0.0.1:8000/v1 --model another-model"
KB_COMMANDS: Mapping[str, Command] = {
    "kb stats": Command(
        "Say what a knowledge base holds, by relation, task, label and model",
        "KB [--json]",
        "kb.sqlite",
        _add_stats_options,
        "distil",
    ),
    "kb show": Command(
        "Show all that is known of one post", "KB ID [--raw]", "kb.sqlite a1", _add_show_options, "distil"
    ),
    "kb export": Command(
        "Write posts with what is known of them, as JSONL or Parquet",
        "KB OUT [--posts POSTS] [options]",
        "kb.sqlite with-intentions.jsonl --posts posts.jsonl",
        _add_export_options,
        "distil",
    ),
    "kb import": Command(
        "Take MIKO's released files into a knowledge base",
        "KB FILE... [--labels PATH] [--images DIR]",
        "miko.sqlite MIKO_benchmark.json",
        _add_import_options,
        "distil",
    ),
    "kb judge": Command(
        "Ask an LLM how plausible and how typical each intention is",
        _JUDGE_USAGE,
        _JUDGE_EXAMPLE,
        _add_judge_options,
        "distil",
    ),
    "kb critic": Command(
        "Train a critic on what people said of intentions",
        "KB --text NAME --out DIR",
        "miko.sqlite --text all-MiniLM-L6-v2 --out critic",
        _add_critic_options,
        "train,distil",
    ),
    "kb weigh": Command(
        "Put a critic's probability on every intention",
        "KB --critic DIR",
        "kb.sqlite --critic critic",
        _add_weigh_options,
        "train,distil",
    ),
    "kb agree": Command(
        "Say how far judges, critics and people agree", "KB", "kb.sqlite", _add_agree_options, "distil"
    ),
    "kb annotate": Command(
        "Write intentions as tasks of Label Studio",
        "KB OUT.json [options]",
        "kb.sqlite tasks.json --count 300",
        _add_annotate_options,
        "distil",
    ),
    "kb annotated": Command(
        "Read what annotators said back in", "KB FILE.json", "kb.sqlite export.json", _add_annotated_options,
        "distil",
    ),
    "kb leak": Command(
        "Say which texts of posts give their labels away",
        "POSTS [--split S]",
        "with-rationales.jsonl",
        _add_leak_options,
        "distil",
    ),
    "kb bench": Command(
        "Compare what several models wrote with a reference",
        "REFERENCE KB... [--encoder NAME] [options]",
        "teacher.sqlite student.sqlite --encoder all-MiniLM-L6-v2",
        _add_bench_options,
        "train,distil",
    ),
}  # fmt: skip


def _run_import(given: Namespace, line: str) -> None:
    from miko_clf.distil.kb.import_miko import import_release

    made = import_release(given.kb, given.files, labels=given.labels, images=given.images)
    print(made.line())
    for name, fault in made.odd[:10]:
        print(f"  {name}: {fault}")
    print(f"next: miko-clf kb stats {shlex.quote(str(given.kb))}")


def _run_export(given: Namespace, line: str) -> None:
    from miko_clf.data.readers import SkipReport
    from miko_clf.distil.kb.export import export_knowledge
    from miko_clf.distil.kb.query import KnowledgeChoice
    from miko_clf.distil.kb.store import open_for_reading

    report = SkipReport() if given.skip_bad else None
    choice = KnowledgeChoice(
        sample=given.sample,
        min_plausibility=given.min_plausibility,
        without=_check_relations(given.without),
        rationale=given.rationale,
    )
    made = export_knowledge(
        open_for_reading(given.kb),
        given.out,
        posts=given.posts,
        rows=given.rows,
        choice=choice,
        report=report,
    )
    print(made.line())
    distil.write_skipped_beside(report, given.out)


def _check_relations(names: list[str]) -> Any:
    from miko_clf.data.post import RELATIONS

    for name in names:
        if name not in RELATIONS:
            raise MikoError(f"no relation called {name!r}; choose from {', '.join(RELATIONS)}")
    return tuple(names)


def _run_show(given: Namespace, line: str) -> None:
    from miko_clf.distil.kb.show import show_known_post
    from miko_clf.distil.kb.store import open_for_reading

    print(show_known_post(open_for_reading(given.kb), given.id, raw=given.raw))


def _run_stats(given: Namespace, line: str) -> None:
    from rich.console import Console

    from miko_clf.distil.kb.stats import compute_knowledge_stats, make_stats_tables
    from miko_clf.distil.kb.store import open_for_reading

    found = compute_knowledge_stats(open_for_reading(given.kb))
    if given.json:
        print(found.model_dump_json(indent=2))
        return
    for table in make_stats_tables(found):
        Console().print(table)


def _run_judge(given: Namespace, line: str) -> None:
    from miko_clf.distil.agreement import describe_agreements
    from miko_clf.distil.jobs import JobPlan
    from miko_clf.distil.judge import judge_knowledge_base
    from miko_clf.distil.kb.store import open_for_reading

    is_near, model = distil.resolve_model(given)
    plan = JobPlan(
        "judge",
        model,
        fallbacks=tuple(given.fallback),
        pictures=not given.no_pictures,
        masked=not (is_near or given.keep_names),
        temperature=given.temperature,
        top_p=given.top_p,
        seed=given.seed,
        max_tokens=given.max_tokens,
    )
    sender = distil.open_client(given)
    tally = judge_knowledge_base(
        given.kb, plan, sender, distil.read_run_terms(given), repeat=given.repeat
    )
    distil.print_tally(tally)
    for agreed in describe_agreements(open_for_reading(given.kb)):
        print(agreed)


def _run_critic(given: Namespace, line: str) -> None:
    from miko_clf.distil.annotation import load_judged_posts
    from miko_clf.distil.kb.store import open_for_reading
    from miko_clf.encode.build import build_text_tower
    from miko_clf.recipe import sections
    from miko_clf.train.critic import build_critic_examples, fit_critic

    found = build_critic_examples(load_judged_posts(open_for_reading(given.kb)))
    tower = build_text_tower(sections.TextTowerSection(source="transformers", name=given.text), [])
    fit_critic(found, tower, seed=given.seed).write(given.out)
    known = sum(example.valid is not None for example in found)
    print(f"critic: {given.out}, trained on {known:,} intentions that people judged")


def _run_weigh(given: Namespace, line: str) -> None:
    from miko_clf.distil.annotation import store_critic_scores
    from miko_clf.distil.kb.store import KnowledgeBase
    from miko_clf.train.critic import Critic, make_critic_scorer

    critic = Critic.read(given.critic)
    with KnowledgeBase(given.kb) as shelf:
        count = store_critic_scores(
            shelf, f"critic:{given.critic.name}", make_critic_scorer(critic)
        )
    print(f"{count:,} intentions weighed by critic:{given.critic.name}")


def _run_agree(given: Namespace, line: str) -> None:
    from miko_clf.distil.agreement import describe_agreements
    from miko_clf.distil.kb.store import open_for_reading

    found = describe_agreements(open_for_reading(given.kb))
    print("\n".join(found) or "no two judges share an intention")


def _run_annotate(given: Namespace, line: str) -> None:
    from pathlib import Path

    from miko_clf.distil.annotation import draw_judged_posts, write_annotations
    from miko_clf.distil.kb.store import open_for_reading

    posts = [one.post for one in draw_judged_posts(open_for_reading(given.kb), given.count)]
    folders = {post.image.parent for post in posts if isinstance(post.image, Path)}
    root = given.images or (min(folders) if len(folders) == 1 else given.kb.absolute().parent)
    count = write_annotations(given.out, posts, root, prefill=given.prefill)
    print(f"{count:,} tasks: {given.out}; labelling interface: {given.out.with_suffix('.xml')}")


def _run_annotated(given: Namespace, line: str) -> None:
    from miko_clf.distil.agreement import measure_agreement
    from miko_clf.distil.annotation import read_annotations, store_annotations, tabulate_ratings
    from miko_clf.distil.kb.store import KnowledgeBase

    answers = read_annotations(given.file)
    with KnowledgeBase(given.kb) as shelf:
        print(f"{store_annotations(shelf, answers):,} answers kept")
    table = tabulate_ratings(answers, "plausible")
    if len(table) > 1:
        found = measure_agreement(table)
        print(
            f"plausibility, {len(table)} annotators: raw {found.raw:.3f}, alpha {found.alpha}, "
            f"AC1 {found.ac1:.3f}"
        )


def _run_leak(given: Namespace, line: str) -> None:
    from miko_clf.data.audit.label_leakage import check_input_leakage
    from miko_clf.distil.run import open_post_stream

    splits = tuple(given.split) or (("train",) if given.posts.is_dir() else ())
    posts = [post for _, post in open_post_stream(given.posts, splits).found]
    found = check_input_leakage(posts, ("description", "intention", "rationale"), allow=True)
    for leak in found:
        print(leak.line())
    if not found:
        raise MikoError(
            f"{given.posts}: nothing to probe; 20 posts of two labels with a description, "
            "intentions or a rationale are needed"
        )


def _run_bench(given: Namespace, line: str) -> None:
    from miko_clf.distil.kb.query import iterate_knowledge
    from miko_clf.distil.kb.store import open_for_reading
    from miko_clf.evaluate.bert_score import BertScore
    from miko_clf.evaluate.generator_benchmark import (
        benchmark_generators,
        list_writers,
        print_benchmark,
        write_benchmark,
    )

    def read(kb: Any, by_model: bool) -> Any:
        posts = (known.filled() for known in iterate_knowledge(open_for_reading(kb)))
        return list_writers(kb.stem, posts, by_model=by_model)

    (reference,) = read(given.reference, False)
    others = [writer for kb in given.others for writer in read(kb, given.by_model)]
    likeness = BertScore(given.encoder) if given.encoder else None
    found = benchmark_generators(
        reference, others, likeness, tower=given.encoder, limit=given.limit
    )
    print_benchmark(found)
    if given.out:
        write_benchmark(found, given.out, command=line)
        print(f"table: {given.out} and {given.out.with_suffix('.md')}")


KB_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "kb stats": _run_stats,
    "kb show": _run_show,
    "kb export": _run_export,
    "kb import": _run_import,
    "kb judge": _run_judge,
    "kb critic": _run_critic,
    "kb weigh": _run_weigh,
    "kb agree": _run_agree,
    "kb annotate": _run_annotate,
    "kb annotated": _run_annotated,
    "kb leak": _run_leak,
    "kb bench": _run_bench,
}
