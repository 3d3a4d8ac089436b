"""The probe: what it makes of servers that do less than they are asked, and say nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from miko_clf.distil import client
from miko_clf.distil.client import ServerDialect, TeacherClient
from miko_clf.distil.probe import ProbeResult, list_models, probe_model
from miko_clf.errors import DistilError
from tests.support.command_line import assert_one_line_error, run_command, write_posts_file
from tests.support.llm_server import Server, serve_pretended_llm

KEY = "sk-a-secret-of-mine"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_pretended_llm(model="plain") as found:
        yield found


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.005)
    monkeypatch.setenv("MIKO_API_KEY", KEY)


def probed(url: str, model: str, *, pictures: bool = False, usage: bool = False) -> ProbeResult:
    async def main() -> ProbeResult:
        teacher = TeacherClient(url)
        try:
            found = await probe_model(teacher, model, pictures=pictures, usage=usage)
            assert teacher.dialects[model] == found.dialect
            return found
        finally:
            await teacher.close()

    return asyncio.run(main())


def test_a_server_that_does_all_it_is_asked_leaves_nothing_to_say(server: Server):
    found = probed(server.url, "plain", pictures=True, usage=True)
    assert found == ProbeResult("plain", ServerDialect(), (), True, 300)
    assert found.lines() == []


@pytest.mark.parametrize(
    ("quirks", "dialect"),
    [
        ("obeys=json_object%2Bschema", ServerDialect("json_object+schema")),
        ("obeys=json_object%2Bschema&chokes=json_schema", ServerDialect("json_object+schema")),
        ("modern", ServerDialect(limit="max_completion_tokens")),
        ("cold", ServerDialect(warm=False)),
        ("modern&cold", ServerDialect(limit="max_completion_tokens", warm=False)),
    ],
)
def test_the_first_dialect_that_is_obeyed_is_spoken(
    server: Server, quirks: str, dialect: ServerDialect
):
    found = probed(server.url, f"any?{quirks}")
    assert found.dialect == dialect
    assert found.ignores == ()


def test_a_server_that_obeys_no_schema_is_asked_in_the_prompt_and_named(server: Server):
    found = probed(server.url, "any?obeys=none")
    assert found.dialect.schema == "prompt"
    assert any("ignores response_format" in line for line in found.lines())


def test_a_server_that_ignores_the_longest_answer_is_named(server: Server):
    assert probed(server.url, "any?endless").ignores == ("ignores max_tokens",)


def test_a_server_that_counts_no_tokens_is_named_and_no_use_with_a_budget(server: Server):
    assert "reports no token counts" in probed(server.url, "any?silent").ignores
    with pytest.raises(DistilError, match="no budget can be kept"):
        probed(server.url, "any?silent", usage=True)


def test_a_server_that_drops_pictures_is_refused_where_pictures_are_sent(server: Server):
    assert probed(server.url, "any?blind").picture_tokens is None
    with pytest.raises(DistilError, match="does not look at it"):
        probed(server.url, "any?blind", pictures=True)


def test_whether_pictures_are_seen_is_not_claimed_where_no_tokens_are_counted(server: Server):
    found = probed(server.url, "any?silent", pictures=True)
    assert found.picture_tokens is None
    assert "so whether it looks at pictures cannot be told" in found.ignores


def test_models_are_listed_where_the_server_lists_them(server: Server):
    async def main(url: str) -> list[str]:
        teacher = TeacherClient(url)
        try:
            return await list_models(teacher)
        finally:
            await teacher.close()

    assert asyncio.run(main(server.url)) == ["plain"]
    assert asyncio.run(main("http://127.0.0.1:9/v1")) is None


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path):
    path = write_posts_file(tmp_path / "posts.jsonl", {"id": "a", "text": "so much fun"})
    given = ("--server", "http://127.0.0.1:9/v1", "--model", "m", "--task", "intentions")
    ended = run_command("distil", path, "--kb", tmp_path / "kb.sqlite", *given)
    assert_one_line_error(ended, "http://127.0.0.1:9/v1")


@pytest.mark.parametrize("given", [{"key": "another"}, {"quota": True}], ids=str)
def test_a_wrong_key_or_an_empty_purse_is_one_line_without_the_key(tmp_path: Path, given: dict):
    path = write_posts_file(tmp_path / "posts.jsonl", {"id": "a", "text": "so much fun"})
    with serve_pretended_llm(**given) as server:
        words = ("--server", server.url, "--model", "m", "--task", "intentions")
        ended = run_command("distil", path, "--kb", tmp_path / "kb.sqlite", *words)
    assert_one_line_error(ended, "401" if "key" in given else "429")
    assert KEY not in ended.err
