"""Distil: what a post's author intends, asked of an LLM once and kept; callable as a function.

The way of a post, a function a line:

    run.distil_posts                      reads the posts, opens the knowledge base
    run.DistilRun.send                    chooses who pays for requests, shows how the run goes
    scheduler.Scheduler.run               takes so many posts at a time
    jobs.JobRunner.run                    asks the questions of a post's job
    jobs.PostJob.put                      makes a question a request, and reads the answer
    scheduler.Scheduler.ask               looks whether the answer is known
    scheduler.PaidSender.pay              sets its price aside
    client.TeacherClient.send             asks the server until it answers
    client.make_request_body              writes what is sent
    response.parse_completion             reads what comes back
    kb.store.KnowledgeBase.put_response   commits it
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

LOCAL_SCHEME = "local:"  # before the folder of an intention LM, in the place of an address


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
    sender = open_sender(server, ceiling=in_flight)
    return distil_posts(Path(posts), Path(kb), job_plan, sender, terms)


def is_local(server: str) -> bool:
    """Say whether a server is `local:FOLDER`, an intention LM on this machine."""
    return server.startswith(LOCAL_SCHEME)


def find_model(server: str, model: str | None) -> str:
    """Return the name of the model to ask, which an intention LM has itself (`DistilError`)."""
    from miko_clf.errors import DistilError

    if is_local(server):
        from miko_clf.distil.local_model import read_intention_lm

        return read_intention_lm(Path(server.removeprefix(LOCAL_SCHEME))).model
    if model is None:
        raise DistilError(f"{server}: name the model that is to be asked")
    return model


def open_sender(server: str, **options: Any) -> "Sender":
    """Return whatever answers requests: a server's client, or an intention LM in its folder.

    `options` are those of `client.TeacherClient`; an intention LM needs none.
    """
    if is_local(server):
        from miko_clf.distil.local_model import LocalModel

        return LocalModel(Path(server.removeprefix(LOCAL_SCHEME)))
    from miko_clf.distil.client import TeacherClient

    return TeacherClient(server, **options)


class _CallablePackage(ModuleType):
    """This package, which may be called: `miko_clf.distil(posts, kb, server=..., model=...)`."""

    def __call__(self, *args: Any, **options: Any) -> "RunTally":
        return distil(*args, **options)

    @property
    def __signature__(self) -> Signature:
        return signature(distil)


sys.modules[__name__].__class__ = _CallablePackage
