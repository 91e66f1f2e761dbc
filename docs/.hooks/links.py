"""A hook of mkdocs: pages link to files of the repository that are not part of the site.

On the code host such a link opens the file; here it would lead nowhere, so its text stays, with the file's
name beside it.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return a page's text with the links that leave `docs/` written out."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def written(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/"):
            return link.group(0)
        name = text.strip("`")
        return f"`{path}`" if path.endswith(name) else f"{text} (`{path}`)"

    return LINK.sub(written, markdown)
