"""`transformers serve`, a real server that ignores much of what it is asked, in silence."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.command_line import assert_one_line_error
from tests.support.real_servers import run_transformers_server
from tests.support.server_questions import (
    WISH,
    ask_question,
    distil_three_posts,
    open_client,
    read_kept_calls,
    read_texts,
    show_picture,
)
from tests.support.tiny_llms import PATCHES, tiny_llama, tiny_llava

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests; it loads the models that it is asked for."""
    with run_transformers_server(tmp_path_factory.mktemp("serve") / "log") as server:
        yield server.url


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a model that reads text."""
    return str(tiny_llama(tmp_path_factory.mktemp("models") / "llama"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a model that sees."""
    return str(tiny_llava(tmp_path_factory.mktemp("models") / "llava"))


def test_a_question_is_answered_and_its_tokens_are_counted(url: str, llama: str) -> None:
    answer = ask_question(url, llama, "Why was this posted?", max_tokens=8)

    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens > 8
    assert answer.usage.completion_tokens == 8


def test_a_picture_lengthens_the_prompt_by_its_patches(url: str, llava: str) -> None:
    without = ask_question(url, llava, "What is shown?", max_tokens=4)
    shown = ask_question(url, llava, show_picture("What is shown?"), max_tokens=4)

    assert shown.usage.prompt_tokens - without.usage.prompt_tokens == PATCHES


def test_a_picture_for_a_model_of_text_is_dropped_in_silence(url: str, llama: str) -> None:
    without = ask_question(url, llama, "What is shown?", max_tokens=4)
    shown = ask_question(url, llama, show_picture("What is shown?"), max_tokens=4)

    assert shown.usage.prompt_tokens == without.usage.prompt_tokens


def test_a_schema_and_the_wish_for_three_answers_are_ignored_in_silence(
    url: str, llama: str
) -> None:
    answer = ask_question(url, llama, "Which colour?", max_tokens=60, response_format=WISH, n=3)

    assert len(answer.choices) == 1
    assert "colour" not in json.loads(answer.choices[0].message.content)


def test_models_cannot_be_listed_where_none_was_downloaded(url: str) -> None:
    async def listed() -> None:
        async with open_client(url) as asking:
            await asking.models.list()

    with pytest.raises(openai.InternalServerError):
        asyncio.run(listed())


@pytest.mark.parametrize(("task", "num_calls"), [("rationale", 3), ("debate", 6)])
def test_what_fits_in_a_prompt_needs_no_schema_and_is_not_asked_again(
    url: str, llava: str, tmp_path: Path, task: str, num_calls: int
) -> None:
    ended = distil_three_posts(url, llava, task, tmp_path)

    assert ended.code == 0, ended
    assert f"{llava}: ignores response_format" in ended.err
    assert ended.out.startswith("3 posts: 3 ok\n")
    calls = read_kept_calls(tmp_path, task)
    assert [call.status for call in calls] == ["ok"] * num_calls
    assert all("meal" in text["rationale"] for text in read_texts(calls))
    again = distil_three_posts(url, llava, task, tmp_path)
    assert f"0 calls answered ({num_calls} answers were there already" in again.out


def test_an_answer_that_ignores_the_schema_is_kept_and_not_used(
    url: str, llava: str, tmp_path: Path
) -> None:
    ended = distil_three_posts(url, llava, "intentions", tmp_path)

    assert ended.code == 0, ended
    assert "ignores response_format" in ended.err
    assert ended.out.startswith("3 posts: 3 invalid\n")
    calls = read_kept_calls(tmp_path, "intentions")
    assert {call.status for call in calls} == {"invalid"}
    assert len(calls) == 6  # each post was asked a second time
    assert all(call.raw for call in calls)


def test_a_model_that_drops_pictures_is_not_shown_any(url: str, llama: str, tmp_path: Path) -> None:
    ended = distil_three_posts(url, llama, "rationale", tmp_path)

    assert_one_line_error(
        ended._replace(err=ended.err.splitlines(True)[-1]), llama, "--vision-model"
    )
    assert "does not look at it" in ended.err
    assert read_kept_calls(tmp_path, "rationale") == []


def test_one_model_sees_for_another_that_does_not(
    url: str, llama: str, llava: str, tmp_path: Path
) -> None:
    ended = distil_three_posts(url, llama, "rationale", tmp_path, "--vision-model", llava)

    assert ended.code == 0, ended
    assert {call.stage for call in read_kept_calls(tmp_path, "rationale")} == {
        "description",
        "rationale",
    }
    assert f"{llama}: ignores response_format" in ended.err
    assert f"{llava}: ignores response_format" in ended.err
