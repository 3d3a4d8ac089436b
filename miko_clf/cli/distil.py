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

    report = SkipReport() if given.skip_bad else None
    is_near, model = near(given)
    plan = Plan(
        given.task,
        model,
        order="student" if given.server.startswith("local:") else given.plan,
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
    tally = gather(given.posts, given.kb, plan, sender(given), terms(given), report=report)
    if given.dry_run:
        return
    tell(tally)
    tell_skipped(report, given.kb)
    kb = shlex.quote(str(given.kb))
    print(f"next: miko-clf kb stats {kb}, then miko-clf kb export {kb} posts.jsonl")


def near(given: Namespace) -> tuple[bool, str]:
    """Return whether the server is on this network, and the name of the model."""
    from miko_clf.distil.privacy import is_near

    if given.model is None and not given.server.startswith("local:"):
        raise UsageError("the following arguments are required: --model")
    return is_near(given.server), given.model or given.server


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
}
