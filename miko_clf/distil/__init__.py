"""Distil: what a post's author intends, asked of an LLM once and kept; callable as a function.

The way of a post, a function a line:

    run.distil_posts             reads the posts and opens the knowledge base
    scheduler.Scheduler.run      takes so many posts at a time
    jobs.JobRunner.run           chooses the questions of a post's job
    jobs.PostJob.put             makes a question a request, and reads the answer
    scheduler.Scheduler.ask      looks whether the answer is known
    scheduler.PaidSender.pay     sets its price aside
    client.TeacherClient.send    asks the server until it answers
    client.make_request_body     writes the request, `response.parse_completion` reads the response
    kb.store.KnowledgeBase.put_response   commits what came
"""

import sys
from collections.abc import Mapping, Sequence
from inspect import Signature, signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from miko_clf.distil.budget import TokenPrice
    from miko_clf.distil.client import Sender
    from miko_clf.distil.scheduler import RunTally


def distil(
    posts: str | Path,
    kb: str | Path,
    *,
    server: str,
    model: str | None = None,
    job: Literal["intentions", "rationale", "debate"] = "intentions",
    splits: Sequence[str] = (),
    limit: int | None = None,
    budget: float | None = None,
    prices: "Mapping[str, TokenPrice | Mapping[str, float]] | None" = None,
    in_flight: int = 64,
    keep_names: bool = False,
    **plan: Any,
) -> "RunTally":
    """Ask an LLM about every post of a file or data folder, and keep its answers in `kb`.

    `server` is the address of an OpenAI-compatible server, or `local:FOLDER` of an intention LM,
    which needs no `model`. At most `limit` posts are asked about, `in_flight` at a time, for no
    more than `budget` dollars. Names are masked for a server outside this network unless
    `keep_names`. `plan` are further fields of `jobs.JobPlan`. What `kb` holds is not asked again.
    Raises a `MikoError`, or `KeyboardInterrupt` where it was stopped.
    """
    from miko_clf.distil.budget import TokenPrice
    from miko_clf.distil.jobs import JobPlan
    from miko_clf.distil.request import is_private_server
    from miko_clf.distil.run import RunTerms, distil_posts
    from miko_clf.errors import DistilError

    if is_local(server):
        if job != "intentions":
            raise DistilError(f"{server}: an intention LM answers no job but intentions")
        plan["order"] = "student"
    masked = not (keep_names or is_private_server(server))
    job_plan = JobPlan(job, find_model(server, model), masked=masked, **plan)
    known = {name: TokenPrice.model_validate(price) for name, price in (prices or {}).items()}
    terms = RunTerms(known, budget, in_flight, tuple(splits), limit)
    sender = open_sender(server, in_flight=in_flight)
    return distil_posts(Path(posts), Path(kb), job_plan, sender, terms)


def is_local(server: str) -> bool:
    """Say whether a server is `local:FOLDER`, an intention LM on this machine."""
    return server.startswith("local:")


def find_model(server: str, model: str | None) -> str:
    """Return the name of the model to ask, which an intention LM has itself.

    Raises `DistilError`.
    """
    from miko_clf.errors import DistilError

    if is_local(server):
        from miko_clf.distil.local_model import read_intention_lm

        return read_intention_lm(Path(server.removeprefix("local:"))).model
    if model is None:
        raise DistilError(f"{server}: name the model that is to be asked")
    return model


def open_sender(
    server: str,
    *,
    in_flight: int = 64,
    per_minute: float | None = None,
    deadline: float = 120.0,
    patience: float = 180.0,
    key_name: str | None = None,
) -> "Sender":
    """Return whatever answers requests: a server's client, or an intention LM in its folder."""
    if is_local(server):
        from miko_clf.distil.local_model import LocalModel

        return LocalModel(Path(server.removeprefix("local:")))
    from miko_clf.distil.client import TeacherClient

    return TeacherClient(
        server,
        ceiling=in_flight,
        per_minute=per_minute,
        deadline=deadline,
        patience=patience,
        key_name=key_name,
    )


class _CallablePackage(ModuleType):
    """This package, which may be called: `miko_clf.distil(posts, kb, server=..., model=...)`."""

    def __call__(self, *args: Any, **options: Any) -> "RunTally":
        return distil(*args, **options)

    @property
    def __signature__(self) -> Signature:
        return signature(distil)


sys.modules[__name__].__class__ = _CallablePackage
