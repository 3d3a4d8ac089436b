"""What the site takes from outside docs/: README.md of folders, and the notes of the root.

On disk these pages stand beside what they speak of, and links between them are those of the
disk. Here each becomes a page of the site, and links to it follow.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
BROUGHT = {
    "deploying.md": "export/README.md",
    "systems.md": "models/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_PAGES = {f"../{path}": page for page, path in BROUGHT.items()}
_LINK = re.compile(r"(?<=\]\()([\w./-]+\.(?:md|html|svg))(?=[#)])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside."""
    for page, path in BROUGHT.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links on the disk to the pages of the site."""
    source = BROUGHT.get(page.file.src_uri)
    here = posixpath.dirname(f"../{source}" if source else page.file.src_uri)

    def follow(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, link[1]))
        return _PAGES.get(path, path.removeprefix("../docs/"))

    return _LINK.sub(follow, markdown)
