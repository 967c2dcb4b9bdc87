"""The page: whole, without a network, and of one piece with its script."""

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

PAGE = {path.name: path.read_text(encoding="utf-8") for path in files("pipeline.serving").joinpath("page").iterdir()}


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.labelled: list[str] = []
        self.addresses: list[str] = []
        self.inputs: list[str] = []
        self.handlers: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.labelled += [values["for"]] if tag == "label" else []
        self.inputs += [values["id"]] if tag == "input" else []
        self.addresses += [values[name] for name in ("src", "href") if name in values]
        self.handlers += [name for name in values if name.startswith("on") or name == "style"]


def test_nothing_comes_from_outside_or_breaks_the_policy(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    elements = Elements(answer.text)
    assert elements.handlers == []
    for address in [*elements.addresses, *re.findall(r'from "([^"]+)"', "".join(PAGE.values()))]:
        assert address == "data:," or (address.startswith("/") and client.get(address).status_code == 200), address
    assert not re.search(r"https?://|@import|url\(|eval\(|innerHTML", "".join(PAGE.values()))


@pytest.mark.parametrize("name", sorted(PAGE))
def test_every_file_of_the_page_is_served(client: TestClient, name: str) -> None:
    answer = client.get("/" if name == "page.html" else f"/{name}")
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
    assert answer.headers["content-type"] == f"{kinds[name.split('.')[1]]}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == PAGE[name]


def test_the_script_finds_what_it_asks_for_and_every_input_has_a_label() -> None:
    elements = Elements(PAGE["page.html"])
    assert len(elements.ids) == len(set(elements.ids))
    assert set(re.findall(r'part\("([^"]+)"\)', PAGE["page.js"])) <= set(elements.ids)
    assert set(elements.inputs) == set(elements.labelled)


def test_dark_and_narrow_screens_have_styles_of_their_own() -> None:
    assert "prefers-color-scheme: dark" in PAGE["page.css"]
    assert "max-width: 600px" in PAGE["page.css"]
    assert '<meta name="viewport"' in PAGE["page.html"]
