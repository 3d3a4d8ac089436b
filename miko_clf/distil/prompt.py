"""Prompts: versioned files, the static part first so that servers can cache it."""

from functools import lru_cache
from hashlib import sha256
from importlib import resources
from string import Template
from typing import NamedTuple

from miko_clf.distil.answer import ORDER
from miko_clf.distil.relations import MEANINGS, STEMS

_RULE = "\n----\n"


class Prompt(NamedTuple):
    """A prompt of one version: the words of the system turn, and the template of the user's."""

    name: str
    version: int
    system: str
    user: str
    sha256: str

    def ask(self, **values: str | None) -> str:
        """Return the user's turn; a line that asks for an absent value is left out."""
        lines = []
        for line in self.user.splitlines():
            needed = Template(line).get_identifiers()
            if all(values.get(name) for name in needed):
                lines.append(Template(line).substitute(values))
        return "\n".join(lines)


@lru_cache
def prompt(name: str) -> Prompt:
    """Return a shipped prompt, such as `one-call`; the digest is that of the whole file."""
    text = resources.files("miko_clf.distil").joinpath("prompts", f"{name}.md").read_text("utf-8")
    first, body = text.split("\n", 1)
    system, user = body.split(_RULE)
    relations = "\n".join(f"- {name}: {STEMS[name]} ... ({MEANINGS[name]})" for name in ORDER)
    version = int(first.removeprefix("version: "))
    return Prompt(
        name,
        version,
        Template(system).safe_substitute(relations=relations),
        user,
        sha256(f"{text}{relations}".encode()).hexdigest(),
    )
