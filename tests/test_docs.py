"""The site: every public name is on its page, every page in its list, and every link and picture leads somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import lodestar

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def test_every_public_name_is_on_the_page_of_names() -> None:
    told = set(re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.M))
    named = [getattr(lodestar, name) for name in lodestar.__all__]
    assert told == {each.__name__ if inspect.ismodule(each) else f"{each.__module__}.{each.__qualname__}" for each in named}


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.name for page in PAGES)


# The builder finds dead links to pages, but not to pictures.
@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert not [each for each in targets if "://" not in each and not (page.parent / each).exists()]
