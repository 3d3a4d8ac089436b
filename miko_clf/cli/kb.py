"""What the commands on a knowledge base call."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import Namespace

from miko_clf.cli import distil
from miko_clf.errors import MikoError


def _import(given: Namespace, line: str) -> None:
    from miko_clf.distil.published import adopt

    made = adopt(given.kb, given.files, labels=given.labels, images=given.images)
    print(made.line())
    for name, fault in made.odd[:10]:
        print(f"  {name}: {fault}")
    print(f"next: miko-clf kb stats {shlex.quote(str(given.kb))}")


def _export(given: Namespace, line: str) -> None:
    from miko_clf.data.read import SkipReport
    from miko_clf.distil.kb import export
    from miko_clf.distil.knowledge import Choice
    from miko_clf.distil.shelf import reading

    report = SkipReport() if given.skip_bad else None
    choice = Choice(
        sample=given.sample,
        min_plausibility=given.min_plausibility,
        without=_relations(given.without),
        rationale=given.rationale,
    )
    made = export(
        reading(given.kb),
        given.out,
        posts=given.posts,
        rows=given.rows,
        choice=choice,
        report=report,
    )
    print(made.line())
    distil.tell_skipped(report, given.out)


def _relations(names: list[str]) -> Any:
    from miko_clf.data.post import RELATIONS

    for name in names:
        if name not in RELATIONS:
            raise MikoError(f"no relation called {name!r}; choose from {', '.join(RELATIONS)}")
    return tuple(names)


def _show(given: Namespace, line: str) -> None:
    from miko_clf.distil.page import show
    from miko_clf.distil.shelf import reading

    print(show(reading(given.kb), given.id, raw=given.raw))


def _stats(given: Namespace, line: str) -> None:
    from rich.console import Console

    from miko_clf.distil.shelf import reading
    from miko_clf.distil.stats import stats, tables

    found = stats(reading(given.kb))
    if given.json:
        print(found.model_dump_json(indent=2))
        return
    for table in tables(found):
        Console().print(table)


def _judge(given: Namespace, line: str) -> None:
    from miko_clf.distil.judging import agreements, judge_all
    from miko_clf.distil.shelf import reading
    from miko_clf.distil.tasks import Plan

    is_near, model = distil.near(given)
    plan = Plan(
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
    sender = distil.sender(given)
    tally = judge_all(given.kb, plan, sender, distil.terms(given), repeat=given.repeat)
    distil.tell(tally)
    for agreed in agreements(reading(given.kb)):
        print(agreed)


def _critic(given: Namespace, line: str) -> None:
    from miko_clf import recipe
    from miko_clf.distil.marking import judged
    from miko_clf.distil.shelf import reading
    from miko_clf.encode.build import text_tower
    from miko_clf.train.critic import fit_critic
    from miko_clf.train.weighing import examples

    found = examples(judged(reading(given.kb)))
    tower = text_tower(recipe.TextTower(source="transformers", name=given.text), [])
    fit_critic(found, tower, seed=given.seed).write(given.out)
    known = sum(example.valid is not None for example in found)
    print(f"critic: {given.out}, trained on {known:,} intentions that people judged")


def _weigh(given: Namespace, line: str) -> None:
    from miko_clf.distil.marking import mark
    from miko_clf.distil.shelf import Shelf
    from miko_clf.train.critic import Critic
    from miko_clf.train.weighing import weights

    critic = Critic.read(given.critic)
    with Shelf(given.kb) as shelf:
        count = mark(shelf, f"critic:{given.critic.name}", weights(critic))
    print(f"{count:,} intentions weighed by critic:{given.critic.name}")


def _agree(given: Namespace, line: str) -> None:
    from miko_clf.distil.judging import agreements
    from miko_clf.distil.shelf import reading

    found = agreements(reading(given.kb))
    print("\n".join(found) or "no two judges share an intention")


def _annotate(given: Namespace, line: str) -> None:
    from pathlib import Path

    from miko_clf.distil.annotate import write_tasks
    from miko_clf.distil.marking import drawn
    from miko_clf.distil.shelf import reading

    posts = [one.post for one in drawn(reading(given.kb), given.count)]
    folders = {post.image.parent for post in posts if isinstance(post.image, Path)}
    root = given.images or (min(folders) if len(folders) == 1 else given.kb.absolute().parent)
    count = write_tasks(given.out, posts, root, prefill=given.prefill)
    print(f"{count:,} tasks: {given.out}; labelling interface: {given.out.with_suffix('.xml')}")


def _annotated(given: Namespace, line: str) -> None:
    from miko_clf.distil.agreement import agreement
    from miko_clf.distil.annotate import ratings, read_annotations
    from miko_clf.distil.marking import collect
    from miko_clf.distil.shelf import Shelf

    answers = read_annotations(given.file)
    with Shelf(given.kb) as shelf:
        print(f"{collect(shelf, answers):,} answers kept")
    table = ratings(answers, "plausible")
    if len(table) > 1:
        found = agreement(table)
        print(
            f"plausibility, {len(table)} annotators: raw {found.raw:.3f}, alpha {found.alpha}, "
            f"AC1 {found.ac1:.3f}"
        )


def _leak(given: Namespace, line: str) -> None:
    from miko_clf.distil.leak import check_inputs
    from miko_clf.distil.source import source

    splits = tuple(given.split) or (("train",) if given.posts.is_dir() else ())
    posts = [post for _, post in source(given.posts, splits).found]
    found = check_inputs(posts, ("description", "intention", "rationale"), allow=True)
    for leak in found:
        print(leak.line())
    if not found:
        raise MikoError(
            f"{given.posts}: nothing to probe; 20 posts of two labels with a description, "
            "intentions or a rationale are needed"
        )


def _bench(given: Namespace, line: str) -> None:
    from miko_clf.distil.knowledge import everything
    from miko_clf.distil.shelf import reading
    from miko_clf.evaluate.bert_score import BertScore
    from miko_clf.evaluate.generator_table import print_benchmark, write_benchmark
    from miko_clf.evaluate.generators import compare, writers

    def read(kb: Any, by_model: bool) -> Any:
        posts = (known.filled() for known in everything(reading(kb)))
        return writers(kb.stem, posts, by_model=by_model)

    (reference,) = read(given.reference, False)
    others = [writer for kb in given.others for writer in read(kb, given.by_model)]
    likeness = BertScore(given.encoder) if given.encoder else None
    found = compare(reference, others, likeness, tower=given.encoder, limit=given.limit)
    print_benchmark(found)
    if given.out:
        write_benchmark(found, given.out, command=line)
        print(f"table: {given.out} and {given.out.with_suffix('.md')}")


ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "kb stats": _stats,
    "kb show": _show,
    "kb export": _export,
    "kb import": _import,
    "kb judge": _judge,
    "kb critic": _critic,
    "kb weigh": _weigh,
    "kb agree": _agree,
    "kb annotate": _annotate,
    "kb annotated": _annotated,
    "kb leak": _leak,
    "kb bench": _bench,
}
