"""What the commands that ask LLMs, and read what they said, call."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import Namespace

from miko_clf.cli.parser import UsageError


def _distil(given: Namespace, line: str) -> None:
    from miko_clf.data.read import SkipReport
    from miko_clf.distil.run import gather
    from miko_clf.distil.tasks import Plan

    report = SkipReport() if given.skip_bad else None
    near, model = _near(given)
    plan = Plan(
        given.task,
        model,
        order="student" if given.server.startswith("local:") else given.plan,
        vision=given.vision_model,
        fallbacks=tuple(given.fallback),
        labels=tuple(part for part in (given.labels or "").split(",") if part),
        pictures=not given.no_pictures,
        masked=not (near or given.keep_names),
        sample=given.sample,
        temperature=given.temperature,
        top_p=given.top_p,
        seed=given.seed,
        max_tokens=given.max_tokens,
    )
    tally = gather(given.posts, given.kb, plan, _sender(given), _terms(given), report=report)
    if given.dry_run:
        return
    _tell(tally, report, given)
    kb = shlex.quote(str(given.kb))
    print(f"next: miko-clf kb stats {kb}, then miko-clf kb export {kb} posts.jsonl")


def _near(given: Namespace) -> tuple[bool, str]:
    """Return whether the server is on this network, and the name of the model."""
    from miko_clf.distil.privacy import is_near

    if given.model is None and not given.server.startswith("local:"):
        raise UsageError("the following arguments are required: --model")
    return is_near(given.server), given.model or given.server


def _sender(given: Namespace) -> Any:
    from miko_clf.distil.teacher import Teacher

    if given.server.startswith("local:"):
        from pathlib import Path

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


def _terms(given: Namespace) -> Any:
    from miko_clf.distil.money import read_prices
    from miko_clf.distil.run import Terms

    return Terms(
        prices=read_prices(given.prices) if given.prices else {},
        budget=given.budget_usd,
        width=given.in_flight,
        splits=tuple(given.split),
        limit=given.limit,
        probe=not given.no_probe,
        dry=given.dry_run,
    )


def _tell(tally: Any, report: Any, given: Namespace) -> None:
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
    if report is not None and len(report):
        path = given.kb.with_name(f"{given.kb.name}.skipped.json")
        report.write(path)
        print(f"{len(report)} bad posts were passed over, see {path}")


ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "distil": _distil,
}
