"""Pages of the repository's root as pages of the site, and links that lead out of docs/.

GitHub shows docs/ with these links, so the documents have them as they work there.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
START = {"README.md": "index.md", "docs/README.md": "index.md"}
FENCE = re.compile(r"^(```\w+) .*$", re.MULTILINE)  # words behind the language, for our tests
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>\.\./[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the first page, the pages of the root, and the program that searches without a server."""
    for name, source in (("index.md", "index.md"), ("assets/iframe-worker.js", "iframe-worker.js")):
        files.append(File.generated(config, name, content=Path(__file__).with_name(source).read_text()))
    for name, page in PAGES.items():
        text = re.sub(r"\]\((?!https?:|#|docs/)", "](../", (ROOT / name).read_text()).replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to pages of the root lead to their copies; those to other files of the repository name them instead."""

    def here(link: re.Match[str]) -> str:
        path = link["path"].removeprefix("../")
        if path in START:
            return f"[{link['text']}]({START[path]})"
        if path in PAGES:
            return f"[{link['text']}]({PAGES[path]}{link['anchor'] or ''})"
        return f"{link['text']} (`{path}`)" if path not in link["text"] else link["text"]

    return LINK.sub(here, FENCE.sub(r"\1", markdown))
