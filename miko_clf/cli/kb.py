"""The commands on a knowledge base: their options and what they call."""

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from miko_clf.cli import distil
from miko_clf.cli.parser import Command, Parser, print_json, write_skipped_posts
from miko_clf.errors import MikoError


def _add_kb_argument(parser: Parser) -> None:
    parser.add_option("kb KB", Path, "knowledge base that distil wrote")


def _add_stats_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    parser.add_json_option()


def _run_stats(args: Namespace, line: str) -> None:
    """Say what a knowledge base holds, by relation, task, label and model.

    `refused` and `missing` are per cent of the asked, `valid %` is of those that were judged,
    `distinct-1` and `-2` are the shares of different words and word pairs among all.
    """
    from miko_clf.distil.kb.stats import compute_knowledge_stats, make_stats_tables
    from miko_clf.distil.kb.store import open_for_reading
    from miko_clf.tables import print_table

    stats = compute_knowledge_stats(open_for_reading(args.kb))
    if args.json:
        print_json(stats)
        return
    for table in make_stats_tables(stats):
        print_table(table)


def _add_show_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    parser.add_option("id ID", str, "id of a post")
    parser.add_option("--raw", bool, "show the answers as they came")


def _run_show(args: Namespace, line: str) -> None:
    """Show all that is known of one post."""
    from miko_clf.distil.kb.query import show_known_post
    from miko_clf.distil.kb.store import open_for_reading

    print(show_known_post(open_for_reading(args.kb), args.id, raw=args.raw))


def _add_export_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    add = parser.add_option
    add("out OUT", Path, ".jsonl or .parquet file to write")
    add("--posts POSTS", Path, "file whose posts are filled in, with all the columns that it has")
    say = "a row is a post, or an intention with its provenance"
    add("--rows", ("posts", "intentions"), say, "posts")
    add("--sample N", NonNegativeInt, "set of answers (default: the newest that ended well)")
    say = "leave out intentions that judges find less plausible, from 0 to 1, and unjudged ones"
    add("--min-plausibility X", ClosedUnitInterval, say)
    add("--without REL", list, "leave out a relation")
    add("--rationale", ("rationale", "debate"), "which to export where there are both")
    add("--skip-bad", bool, "pass over bad posts and list them in a file")


def _run_export(args: Namespace, line: str) -> None:
    """Write posts with what is known of them, as JSONL or Parquet.

    The file is what fit, score and the other commands read as posts.
    """
    from miko_clf.data.readers import SkipReport
    from miko_clf.distil.kb.export import export_knowledge
    from miko_clf.distil.kb.query import KnowledgeChoice
    from miko_clf.distil.kb.store import open_for_reading

    report = SkipReport() if args.skip_bad else None
    choice = KnowledgeChoice(
        sample=args.sample,
        min_plausibility=args.min_plausibility,
        without=_check_relations(args.without),
        rationale=args.rationale,
    )
    tally = export_knowledge(
        open_for_reading(args.kb),
        args.out,
        posts=args.posts,
        rows=args.rows,
        choice=choice,
        report=report,
    )
    print(tally.line())
    write_skipped_posts(report, args.out.with_name(f"{args.out.name}.skipped.json"))


def _check_relations(names: list[str]) -> Any:
    from miko_clf.data.post import RELATIONS

    for name in names:
        if name not in RELATIONS:
            raise MikoError(f"no relation called {name!r}; choose from {', '.join(RELATIONS)}")
    return tuple(names)


def _add_import_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    add = parser.add_option
    say = "released file of MIKO: the benchmark, intentions with key information, or descriptions"
    add("files FILE", Path, say, nargs="+")
    say = "MMSD2.0 file, or folder of its splits, whose labels the posts are given"
    add("--labels PATH", Path, say)
    add("--images DIR", Path, "where the pictures of the posts lie")


def _run_import(args: Namespace, line: str) -> None:
    """Take MIKO's released files into a knowledge base."""
    from miko_clf.distil.kb.import_miko import import_release

    tally = import_release(args.kb, args.files, labels=args.labels, images=args.images)
    print(tally.line())
    for name, fault in tally.odd[:10]:
        print(f"  {name}: {fault}")
    print(f"next: miko-clf kb stats {shlex.quote(str(args.kb))}")


def _add_judge_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    say = "share of the posts that are judged twice, to see how far the judge agrees with itself"
    parser.add_option("--repeat X", ClosedUnitInterval, f"{say} (%(default)s)", 0.05)
    distil.add_server_options(parser)


def _run_judge(args: Namespace, line: str) -> None:
    """Ask an LLM how plausible and how typical each intention is.

    What it says is kept in KB as scores of llm:NAME. A model favours what it wrote itself, so ask
    another.
    """
    from miko_clf.distil.agreement import measure_agreements
    from miko_clf.distil.judge import judge_knowledge_base
    from miko_clf.distil.kb.store import open_for_reading

    is_near, model = distil.resolve_model(args)
    plan = distil.read_plan(args, "judge", model, is_near=is_near)
    tally = judge_knowledge_base(
        args.kb, plan, distil.open_client(args), distil.read_run_terms(args), repeat=args.repeat
    )
    distil.print_tally(tally)
    for match in measure_agreements(open_for_reading(args.kb)):
        print(match.line())


def _run_agreement(args: Namespace, line: str) -> None:
    """Say how far judges, critics and people agree.

    Raw agreement, Krippendorff's alpha and Gwet's AC1 of each two that judged the same intentions;
    again:NAME is what a judge said when it was asked a second time.
    """
    from miko_clf.distil.agreement import measure_agreements
    from miko_clf.distil.kb.store import open_for_reading
    from miko_clf.tables import make_text_table, print_table

    matches = measure_agreements(open_for_reading(args.kb))
    if args.json:
        print_json([match._asdict() for match in matches])
        return
    if not matches:
        print("no two judges share an intention")
        return
    columns = ("judges", "of", "intentions", "raw", "alpha", "AC1")
    rows = [
        (f"{match.one} and {match.other}", name, f"{figure.units:,}", f"{figure.raw:.3f}",
         "undefined" if figure.alpha is None else f"{figure.alpha:.3f}", f"{figure.ac1:.3f}")
        for match in matches
        for name, figure in (("plausibility", match.plausibility), ("typicality", match.typicality))
        if figure
    ]  # fmt: skip
    print_table(make_text_table("", columns, rows, (0, 1)))


def _add_export_annotation_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    add = parser.add_option
    add("out OUT.json", Path, "tasks to write; the interface goes beside them")
    say = "folder of pictures that Label Studio serves (default: that of the knowledge base)"
    add("--images DIR", Path, say)
    add("--count N", PositiveInt, "posts, drawn by their ids (default: all)")
    add("--prefill", bool, "show annotators what judges said; they will lean to it")


def _run_export_annotation(args: Namespace, line: str) -> None:
    """Write intentions as tasks of Label Studio."""
    from miko_clf.distil.annotation import draw_judged_posts, write_annotations
    from miko_clf.distil.kb.store import open_for_reading

    posts = [judged.post for judged in draw_judged_posts(open_for_reading(args.kb), args.count)]
    folders = {post.image.parent for post in posts if isinstance(post.image, Path)}
    root = args.images or (min(folders) if len(folders) == 1 else args.kb.absolute().parent)
    count = write_annotations(args.out, posts, root, prefill=args.prefill)
    print(f"{count:,} tasks: {args.out}; labelling interface: {args.out.with_suffix('.xml')}")


def _add_import_annotation_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    parser.add_option("file FILE.json", Path, "JSON export of Label Studio")


def _run_import_annotation(args: Namespace, line: str) -> None:
    """Read what annotators said back in."""
    from miko_clf.distil.agreement import measure_agreement
    from miko_clf.distil.annotation import read_annotations, store_annotations, tabulate_ratings
    from miko_clf.distil.kb.store import KnowledgeBase

    answers = read_annotations(args.file)
    with KnowledgeBase(args.kb) as kb:
        print(f"{store_annotations(kb, answers):,} answers kept")
    ratings = tabulate_ratings(answers, "plausible")
    if len(ratings) > 1:
        figures = measure_agreement(ratings)
        print(
            f"plausibility, {len(ratings)} annotators: raw {figures.raw:.3f}, "
            f"alpha {figures.alpha}, AC1 {figures.ac1:.3f}"
        )


def _add_train_critic_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    add = parser.add_option
    add("--text NAME", str, "text tower: a folder or a name", required=True)
    add("--out DIR", Path, "folder of the critic", required=True)
    add("--seed N", int, "", 0)


def _run_train_critic(args: Namespace, line: str) -> None:
    """Train a critic on what people said of intentions."""
    from miko_clf.distil.annotation import load_judged_posts
    from miko_clf.distil.kb.store import open_for_reading
    from miko_clf.encode.build import build_text_tower
    from miko_clf.recipe import sections
    from miko_clf.train.critic import build_critic_examples, fit_critic

    examples = build_critic_examples(load_judged_posts(open_for_reading(args.kb)))
    tower = build_text_tower(sections.TextTowerSection(source="transformers", name=args.text), [])
    fit_critic(examples, tower, seed=args.seed).write(args.out)
    known = sum(example.valid is not None for example in examples)
    print(f"critic: {args.out}, trained on {known:,} intentions that people judged")
    kb, critic = shlex.quote(str(args.kb)), shlex.quote(str(args.out))
    print(f"next:   miko-clf kb apply-critic {kb} --critic {critic}")


def _add_apply_critic_options(parser: Parser) -> None:
    _add_kb_argument(parser)
    say = "folder that kb train-critic has written"
    parser.add_option("--critic DIR", Path, say, required=True)


def _run_apply_critic(args: Namespace, line: str) -> None:
    """Put a critic's probability on every intention."""
    from miko_clf.distil.annotation import store_critic_scores
    from miko_clf.distil.kb.store import KnowledgeBase
    from miko_clf.train.critic import Critic

    critic = Critic.read(args.critic)
    with KnowledgeBase(args.kb) as kb:
        count = store_critic_scores(kb, f"critic:{args.critic.name}", critic.score_posts)
    print(f"{count:,} intentions weighed by critic:{args.critic.name}")


def _add_leak_options(parser: Parser) -> None:
    add = parser.add_option
    add("posts POSTS", Path, "file of labelled posts, or a data folder")
    add("--split S", list, "split of a data folder, may be repeated (default: train, else all)")
    parser.add_json_option()


def _run_leak(args: Namespace, line: str) -> None:
    """Say which texts of posts give their labels away.

    Reads the label off a description, intentions or a rationale with simple words, and off the
    post itself: a text that tells much more than its post knew the label.
    """
    from miko_clf.data.audit.label_leakage import check_input_leakage
    from miko_clf.distil.run import open_post_stream
    from miko_clf.tables import make_text_table, print_table

    splits = tuple(args.split) or (("train",) if args.posts.is_dir() else ())
    posts = [post for _, post in open_post_stream(args.posts, splits).posts]
    leaks = check_input_leakage(posts, ("description", "intention", "rationale"), allow=True)
    if not leaks:
        raise MikoError(
            f"{args.posts}: nothing to probe; 20 posts of two labels with a description, "
            "intentions or a rationale are needed"
        )
    if args.json:
        print_json(leaks)
        return
    columns = ("text", "verdict", "F1", "names masked", "off the post", "naming a class")
    rows = [
        (leak.name, leak.verdict, f"{leak.text_f1:.3f}", f"{leak.masked_f1:.3f}",
         f"{leak.post_f1:.3f}", f"{leak.explicit:.1%} of {leak.rows:,}")
        for leak in leaks
    ]  # fmt: skip
    print_table(make_text_table("macro-F1 of the label, read off a text", columns, rows, (0, 1)))


KB_COMMANDS: dict[str, Command] = {
    "kb stats": Command("KB [--json]", "kb.sqlite", _add_stats_options, _run_stats, "distil"),
    "kb show": Command("KB ID [--raw]", "kb.sqlite a1", _add_show_options, _run_show, "distil"),
    "kb export": Command(
        "KB OUT [--posts POSTS] [options]", "kb.sqlite with-intentions.jsonl --posts posts.jsonl",
        _add_export_options, _run_export, "distil",
    ),
    "kb import": Command(
        "KB FILE... [--labels PATH] [--images DIR]", "miko.sqlite MIKO_benchmark.json",
        _add_import_options, _run_import, "distil",
    ),
    "kb leak": Command(
        "POSTS [--split S] [--json]", "with-rationales.jsonl",
        _add_leak_options, _run_leak, "distil",
    ),
    "kb judge": Command(
        "KB --server URL --model NAME [options]",
        "kb.sqlite --server http://127.0.0.1:8000/v1 --model another-model",
        _add_judge_options, _run_judge, "distil",
    ),
    "kb export-annotation": Command(
        "KB OUT.json [options]", "kb.sqlite tasks.json --count 300",
        _add_export_annotation_options, _run_export_annotation, "distil",
    ),
    "kb import-annotation": Command(
        "KB FILE.json", "kb.sqlite export.json",
        _add_import_annotation_options, _run_import_annotation, "distil",
    ),
    "kb train-critic": Command(
        "KB --text NAME --out DIR", "miko.sqlite --text all-MiniLM-L6-v2 --out critic",
        _add_train_critic_options, _run_train_critic, "train,distil",
    ),
    "kb apply-critic": Command(
        "KB --critic DIR", "kb.sqlite --critic critic",
        _add_apply_critic_options, _run_apply_critic, "train,distil",
    ),
    "kb agreement": Command(
        "KB [--json]", "kb.sqlite",
        _add_stats_options, _run_agreement, "distil",
    ),
}  # fmt: skip
