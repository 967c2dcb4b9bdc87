"""A page of HTML as a browser takes it apart."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr", "source"}


class Page(HTMLParser):
    """What a browser would see: elements, the addresses they load or lead to, text, and unbalanced tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("th", "td", "dt", "dd", "tr"):
            self.text += " "
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "poster", "action", "srcset"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
            self.addresses += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.text += data
