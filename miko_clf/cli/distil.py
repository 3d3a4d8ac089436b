"""What the commands that ask LLMs, and read what they said, call."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from miko_clf.cli.parser import UsageError


def _distil(given: Namespace, line: str) -> None:
    from miko_clf.data.read import SkipReport
    from miko_clf.distil.run import gather
    from miko_clf.distil.tasks import Plan

    if given.submit and not given.batch:
        raise UsageError("--submit hands over the files of --batch DIR, which is not given")
    local = (given.server or "").startswith("local:")
    if local and (given.task != "intentions" or given.vision_model or given.model):
        raise UsageError("a student answers --task intentions alone, and takes no model's name")
    offline = bool(given.batch and not given.submit and not given.server)
    report = SkipReport() if given.skip_bad else None
    is_near, model = (True, given.model) if offline and given.model else near(given)
    plan = Plan(
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
        tally = _in_waves(given, plan, report, offline)
    else:
        tally = gather(given.posts, given.kb, plan, sender(given), terms(given), report=report)
    if given.dry_run:
        return
    tell(tally)
    tell_skipped(report, given.kb)
    kb = shlex.quote(str(given.kb))
    if tally.unread:
        print(f"{tally.unread:,} posts wait for answers; the same command reads them")
    else:
        print(f"next: miko-clf kb stats {kb}, then miko-clf kb export {kb} posts.jsonl")


def _student(given: Namespace, line: str) -> None:
    from miko_clf.train.loop import StoppedError
    from miko_clf.train.student import Course, teach

    course = Course(
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
        teach(_taught(given.source), course)
    except StoppedError as error:
        raise KeyboardInterrupt(str(error)) from None
    out = shlex.quote(str(given.out))
    print(f"student: {given.out}")
    print(f"next:    miko-clf distil POSTS --server local:{out} --kb local.sqlite")


def _taught(path: Path) -> Any:
    """Return the posts of a knowledge base, or of a file of posts."""
    from miko_clf.data.read import read_posts
    from miko_clf.data.table import SUFFIXES
    from miko_clf.distil.knowledge import everything
    from miko_clf.distil.shelf import reading

    if path.suffix.lower() in SUFFIXES:
        return read_posts(path)
    return (known.filled() for known in everything(reading(path)))


def _in_waves(given: Namespace, plan: Any, report: Any, offline: bool) -> Any:
    from miko_clf.distil.teacher import Teacher
    from miko_clf.distil.waves import gather_in_waves

    asked = None if offline else sender(given)
    if asked is not None and not isinstance(asked, Teacher):
        raise UsageError("--batch is for servers; a student in a folder is asked at once")
    tally, written = gather_in_waves(
        given.posts,
        given.kb,
        plan,
        given.batch,
        asked,
        terms(given),
        send=given.submit,
        report=report,
    )
    for path in written.waiting:
        print(f"to be answered: {path}")
    return tally


def near(given: Namespace) -> tuple[bool, str]:
    """Return whether the server is on this network, and the name of the model."""
    from miko_clf.distil.privacy import is_near
    from miko_clf.distil.student import read_page

    local = (given.server or "").startswith("local:")
    missing = [name for name in ("server", "model") if given[name] is None]
    if missing and not (local and missing == ["model"]):
        names = ", ".join(f"--{name}" for name in missing)
        raise UsageError(f"the following arguments are required: {names}")
    if local:
        return True, read_page(Path(given.server.removeprefix("local:"))).model
    return is_near(given.server), given.model


def sender(given: Namespace) -> Any:
    """Return whatever answers calls: a server, or a student in a folder."""
    from miko_clf.distil.teacher import Teacher

    if given.server.startswith("local:"):
        from miko_clf.distil.local import Local

        return Local(Path(given.server.removeprefix("local:")))
    return Teacher(
        given.server,
        ceiling=given.in_flight,
        per_minute=given.rpm,
        deadline=given.deadline,
        patience=given.patience,
        key_name=given.key_name,
    )


def terms(given: Namespace) -> Any:
    """Return the terms of a run; what a command does not take is as if it was not given."""
    from miko_clf.distil.money import read_prices
    from miko_clf.distil.run import Terms

    return Terms(
        prices=read_prices(given.prices) if given.prices else {},
        budget=given.budget_usd,
        width=given.in_flight,
        splits=tuple(given.get("split", ())),
        limit=given.get("limit"),
        probe=not given.no_probe,
        dry=given.get("dry_run", False),
    )


def tell(tally: Any) -> None:
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


def tell_skipped(report: Any, beside: Path) -> None:
    """Write which posts were passed over beside a file, and say so."""
    if report is not None and len(report):
        path = beside.with_name(f"{beside.name}.skipped.json")
        report.write(path)
        print(f"{len(report)} bad posts were passed over, see {path}")


ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "distil": _distil,
    "distil student": _student,
}
