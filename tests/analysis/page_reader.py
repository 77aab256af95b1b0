"""A page as text, tags and attributes, checked while it is read."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "hr", "link", "img", "input"}
FETCHING = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}
ATTACK = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Fails on a tag that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f" {data.strip()}"


def reaches_out(path: Path) -> list[str]:
    """What of a page would ask the network, or another file, for anything."""
    text = path.read_text()
    page = Page(text)
    found = [f"{name}={value}" for name, value in page.attributes if name in FETCHING]
    return (
        found
        + [tag for tag in page.tags if tag in {"link", "img", "iframe", "object", "embed"}]
        + re.findall(r"@import|url\(|(?:src|href)=|fetch\(|XMLHttpRequest|WebSocket", text)
    )
