"""The playground in a real browser: each tab as a person uses it, by the keyboard alone, on a phone, and read by axe-core.

Needs chromium, of Debian or at $CHROMIUM, and playwright; the contrast is checked where $AXE names axe-core's axe.min.js.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'lodestar[play]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed", allow_module_level=True)
AXE = os.environ.get("AXE")
RULES = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']})"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, url: str, folder: Path) -> Iterator[Any]:
    """The page with the small model chosen; at the end nothing was fetched elsewhere, and nothing failed."""
    opened = chromium.new_page(viewport={"width": 1280, "height": 900})
    yield from visited(opened, url, folder)


@pytest.fixture
def phone(chromium: Any, url: str, folder: Path) -> Iterator[Any]:
    yield from visited(chromium.new_page(viewport={"width": 390, "height": 844}), url, folder)


def visited(opened: Any, url: str, folder: Path) -> Iterator[Any]:
    strange: list[str] = []
    opened.set_default_timeout(20_000)
    opened.on("request", lambda request: strange.append(request.url) if not ours(request.url, url) else None)
    opened.on("pageerror", lambda error: strange.append(str(error)))
    opened.goto(url)
    with opened.expect_response(lambda answer: "run/predict" in answer.url and '"ship"' in answer.text()):
        choose(opened, opened.get_by_label("Model", exact=True), str(folder / "plain.safetensors"))
    opened.get_by_label("Pictures", exact=True).fill("2")
    yield opened
    opened.close()
    assert not strange


def ours(address: str, url: str) -> bool:
    return address.startswith((url, "data:", "blob:"))


def choose(page: Any, field: Any, name: str) -> None:
    field.click()
    page.get_by_role("option", name=name, exact=True).click()


def tab(page: Any, name: str) -> Any:
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_role("tabpanel").and_(page.locator(":visible"))


def made(panel: Any, button: str) -> str:
    """The command line of what a button makes."""
    panel.get_by_role("button", name=button, exact=True).click()
    panel.locator(".pictures img").first.wait_for()
    line = panel.locator(".command textarea")
    playwright.expect(line).not_to_have_value("", timeout=60_000)
    return str(line.input_value())


def check(page: Any) -> None:
    """Raise if axe-core finds a fault."""
    if AXE is not None:
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        assert not [(each["id"], each["nodes"][0]["html"]) for each in page.evaluate(RULES)["violations"]]


def test_guidance_is_chosen_with_its_settings_and_sampled(page: Any, folder: Path, tmp_path: Path) -> None:
    choose(page, page.get_by_label("Kinds of guidance"), "cfg")
    page.keyboard.press("Escape")
    page.get_by_label("number input for cfg: scale").fill("4")
    page.get_by_label("Steps", exact=True).fill("3")
    line = made(tab(page, "Sample"), "Sample")
    assert line == f"lodestar sample {folder / 'plain.safetensors'} --steps 3 --guidance cfg:scale=4 --count 2 --out pictures"
    with page.expect_download() as sent:
        page.get_by_text("Download PNG and manifest").and_(page.locator(":visible")).click()
    assert sent.value.suggested_filename == "pictures.zip"
    check(page)


def test_scales_and_models_stand_side_by_side(page: Any) -> None:
    panel = tab(page, "Side by side")
    panel.get_by_label("Scales of the first guidance").fill("0,2")
    assert made(panel, "Side by side").count("--guidance cfg:scale=") == 2
    assert panel.locator(".results img").count() == 2
    panel = tab(page, "Compare")
    choose(page, panel.get_by_label("Other model"), "cifar10_weak")
    page.get_by_label("Steps", exact=True).fill("2")
    assert "sample cifar10_weak" in made(panel, "Compare")
    check(page)


def test_a_picture_is_painted_and_filled_in(page: Any, tmp_path: Path) -> None:
    panel = tab(page, "Edit")
    choose(page, panel.get_by_label("Kind of edit"), "inpaint")
    panel.get_by_label("inpaint: resamples").fill("1")
    Image.effect_noise((60, 48), 90).save(tmp_path / "picture.png")
    panel.locator("input[type=file]").first.set_input_files(str(tmp_path / "picture.png"))
    canvas = panel.locator("canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(2_000)  # the picture comes into the canvas
    box = canvas.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(middle[0] - 30, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] + 30, middle[1] + 5, steps=5)
    page.mouse.up()
    panel.locator("img").nth(1).wait_for()  # the mask
    page.wait_for_timeout(1_000)
    line = made(panel, "Edit")
    assert "edit inpaint" in line and "picture.png --resamples 1" in line and "--mask mask.png" in line
    check(page)


def test_a_picture_is_enlarged(page: Any, folder: Path) -> None:
    choose(page, page.get_by_label("Model", exact=True), str(folder / "up.safetensors"))
    panel = tab(page, "Upsample")
    page.get_by_label("Classes", exact=True).click()
    page.get_by_role("option", name="dog", exact=True).click()
    page.keyboard.press("Escape")
    panel.locator("input[type=file]").first.set_input_files(str(folder / "dog.png"))
    panel.locator("img").first.wait_for()
    assert "lodestar upsample" in made(panel, "Upsample")


def test_what_needs_a_clip_is_shown_for_models_that_have_one(page: Any, folder: Path) -> None:
    names = ("Variations", "Blend", "Text difference")
    assert not any(page.get_by_role("tab", name=name, exact=True).is_visible() for name in names)
    choose(page, page.get_by_label("Model", exact=True), str(folder / "unclip.bundle.json"))
    panel = tab(page, "Blend")
    for number, field in enumerate(panel.locator("input[type=file]").element_handles()):
        field.set_input_files(str(folder / "dog.png"))
        panel.locator("img").nth(number).wait_for()
    panel.get_by_label("Pictures, the two ends included").fill("3")
    assert "edit blend" in (line := made(panel, "Blend")) and "picture.png second.png --points 3" in line
    check(page)
    panel = tab(page, "Text difference")
    panel.locator("input[type=file]").first.set_input_files(str(folder / "dog.png"))
    panel.locator("img").first.wait_for()
    panel.get_by_label("Text that tells the picture as it is").fill("a dog")
    panel.get_by_label("Text that tells the result").fill("a star")
    assert "--from 'a dog' --to 'a star'" in made(panel, "Change")
    check(page)


def test_a_cascade_is_sampled(page: Any, folder: Path) -> None:
    choose(page, page.get_by_label("Model", exact=True), str(folder / "small.safetensors"))
    page.get_by_role("button", name="Cascade").click()
    page.get_by_label("Upsamplers").click()
    page.get_by_role("option", name=str(folder / "up.safetensors"), exact=True).and_(page.locator(":visible")).last.click()
    page.keyboard.press("Escape")
    assert f"--then {folder / 'up.safetensors'} " in made(tab(page, "Sample"), "Sample")
    check(page)


def test_points_of_a_sweep_are_pressed_and_a_run_is_watched(page: Any, folder: Path) -> None:
    panel = tab(page, "Sweeps")
    choose(page, panel.get_by_label("Sweep", exact=True), str(folder / "sweep"))
    panel.locator("[data-mark='1']").first.focus()
    page.keyboard.press("Enter")
    panel.get_by_text("scale 2").first.wait_for()
    check(page)
    panel = tab(page, "Training")
    choose(page, panel.get_by_label("Run", exact=True), str(folder / "run"))
    panel.get_by_text("400 images seen").first.wait_for()
    with open(folder / "run" / "log.jsonl", "a") as log:
        log.write('{"images": 500, "loss": 0.1}\n')
    panel.get_by_text("500 images seen").first.wait_for(timeout=10_000)
    check(page)


def test_mistakes_are_told_in_a_line_and_work_can_be_cancelled(page: Any) -> None:
    panel = tab(page, "Sample")
    page.get_by_label("Steps", exact=True).fill("banana")
    panel.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_text("write a number (250)").first.wait_for()
    choose(page, page.get_by_label("Model", exact=True), "cifar10")
    page.get_by_label("Steps", exact=True).fill("60")
    page.get_by_label("Pictures", exact=True).fill("16")
    panel.get_by_role("button", name="Sample", exact=True).click()
    panel.get_by_text("of 60").wait_for()
    panel.get_by_role("button", name="Cancel").click()
    step = panel.get_by_text("of 60").inner_text()
    page.wait_for_timeout(2_000)
    assert panel.get_by_text("of 60").inner_text() == step, "previews have ended"


def test_the_keyboard_alone_suffices(page: Any) -> None:
    """From the first field by Tab to a class and to the button."""
    reached = []
    page.get_by_label("Model", exact=True).focus()
    for _ in range(40):
        name = page.evaluate("(e => e.getAttribute('aria-label') || e.innerText || e.id)(document.activeElement)")
        reached.append(name)
        if name == "Classes":
            page.keyboard.type("dog")
            page.wait_for_timeout(500)  # the list is filtered
            page.keyboard.press("Enter")
        if name == "Sample" and page.evaluate("document.activeElement.getAttribute('role')") != "tab":
            page.keyboard.press("Enter")
            break
        page.keyboard.press("Tab")
    assert {"Classes", "Seed", "Kinds of guidance", "Sample"} <= set(reached), reached
    line = page.locator(".command textarea:visible")
    playwright.expect(line).not_to_have_value("", timeout=60_000)
    assert "--label dog" in line.input_value()


def test_a_phone_has_room(phone: Any) -> None:
    line = made(tab(phone, "Sample"), "Sample")
    assert line.startswith("lodestar sample")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out"
    box = phone.locator(".pictures img").first.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    check(phone)
