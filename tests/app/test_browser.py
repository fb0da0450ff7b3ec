"""The page in a real browser, with the shipped model. Skips without a Chromium."""

import re
import socket

import pytest
from axe_playwright_python.sync_playwright import Axe

from app.gallery import gallery
from app.settings import Settings
from app.shared import runtime
from app.ui import build, launch
from latentomni.avworld.questions import draw_questions
from latentomni.avworld.writing import write_clip
from latentomni.media import probe
from latentomni.trace import Trace

pytestmark = pytest.mark.timeout(240)  # whole visits; every single wait has LIMIT_MS
CELL = "#inspector .li-cell:not(.is-pending)"
MOMENT = re.compile(r"Most similar to (\d+\.\d)–")
LEFT = re.compile("AbortError: signal is aborted|Unexpected error Connection errored out")  # gradio, when a page is left or reloaded
LIMIT_MS = 60_000
ENGLISH = """() => {
    const texts = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), isSeen = (node) => node?.checkVisibility();
    for (let node; (node = walker.nextNode()); )
        if (isSeen(node.parentElement) && !node.parentElement.closest("script, style, .li-text")) texts.push(node.data);
    for (const name of ["aria-label", "title", "placeholder"])
        document.querySelectorAll(`[${name}]`).forEach((node) => isSeen(node) && !node.closest(".li-text") && texts.push(node.getAttribute(name)));
    return texts.filter((text) => /[a-z]{2}/i.test(text) && !/[\u4e00-\u9fff]/.test(text));
}"""
TABS = ("Latents", "Does it matter?", "Map", "Attention", "Compare", "Runs")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app, served by this process on a free port, its model loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = Settings(Settings.read([]).model, "127.0.0.1", port)
        demo = build(settings)
        runtime.get()
        # `_frontend`: gradio's own check gives its server 3 s to answer, which a busy machine does not keep
        launch(demo, settings, prevent_thread_lock=True, quiet=True, _frontend=False)
        yield f"http://127.0.0.1:{port}/"
        demo.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page; an error of a script or a request to another host fails the test."""
    complaints, pages = [], []

    def opened(width_px=1280, query="", **context):
        page = browser.new_page(viewport={"width": width_px, "height": 900}, reduced_motion="reduce", **context)
        page.set_default_timeout(LIMIT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and not LEFT.match(message.text) and complaints.append(message.text))
        page.on("request", lambda request: request.url.startswith((address, "data:", "blob:")) or complaints.append(request.url))
        page.goto(address + query)
        page.wait_for_selector(".lo-card")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def open_example(page, number=0):
    card = page.locator(".lo-card").nth(number)
    card.click()
    page.locator("h2.lo-turn", has_text=card.locator("span").last.text_content()).wait_for()
    page.wait_for_selector(CELL)
    page.wait_for_function("document.querySelector('#clip-player')?.readyState >= 1")


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def watch_status(page):
    """From now on, remember what the status line says; `finished` waits for the end of a task."""
    page.evaluate("""() => {
        const line = document.querySelector("#status .lo-status");
        window.states = [];
        new MutationObserver(() => window.states.push(line.dataset.kind)).observe(line, {attributes: true, childList: true});
    }""")


def finished(page):
    page.wait_for_function("window.states.includes('busy') && window.states.at(-1) !== 'busy'")
    line = page.locator("#status .lo-status")
    assert line.get_attribute("data-kind") == "done", line.inner_text()
    return line.inner_text()


def ask(page, text):
    watch_status(page)
    page.locator("#question textarea").fill(text)
    page.locator("#question textarea").press("Enter")
    return finished(page)


def click_a_cell(page):
    """Click the last cell that names a moment later than the start; returns that moment in seconds."""
    cells = page.locator(CELL).all()
    moments = [(float(found[1]), cell) for cell in cells if (found := MOMENT.search(cell.get_attribute("aria-label")))]
    moment_s, cell = max(moments, key=lambda pair: pair[0])
    page.evaluate("document.querySelector('#clip-player').currentTime = 0")
    cell.click()
    return moment_s


def player_time_s(page):
    return page.evaluate("document.querySelector('#clip-player').currentTime")


def test_examples_open_at_once_and_a_click_on_a_cell_seeks(open_page):
    page = open_page()
    assert page.locator(".lo-card").count() == len(gallery()) >= 4
    for number in range(len(gallery())):
        open_example(page, number)
    moment_s = click_a_cell(page)
    assert player_time_s(page) == pytest.approx(moment_s, abs=0.1)


def test_a_question_streams_latents_and_a_click_on_a_cell_seeks(open_page):
    page = open_page()
    open_example(page)
    page.locator("#suggestions .lo-suggestion").first.click()
    question = page.locator("#question textarea")
    page.wait_for_function("document.querySelector('#question textarea').value.length > 0")
    text = question.input_value()
    watch_status(page)
    question.press("Enter")
    finished(page)
    assert page.locator("h2.lo-turn").inner_text() == text
    assert page.locator("button.lo-turn").count() == 1
    moment_s = click_a_cell(page)
    assert player_time_s(page) == pytest.approx(moment_s, abs=0.1)
    page.locator("#stop[disabled]").wait_for()
    page.locator("#download-trace").wait_for()


def test_scrubbing_the_player_lights_the_latents_of_that_moment(open_page):
    page = open_page()
    open_example(page)
    moment_s = click_a_cell(page)
    page.evaluate("seconds => document.querySelector('#clip-player').currentTime = seconds", moment_s + 0.2)
    page.wait_for_selector(".li-cell.is-now")
    page.evaluate("document.querySelector('#clip-player').currentTime = document.querySelector('#clip-player').duration")
    page.wait_for_selector(".li-cell.is-now", state="detached")


def test_asking_without_a_clip_is_answered_in_one_sentence(open_page):
    page = open_page()
    page.locator("#question textarea").fill("What is seen?")
    page.locator("#ask").click()
    page.locator("#status .lo-status[data-kind=error]").wait_for()
    assert "no clip yet" in page.locator("#status .lo-status").inner_text()
    assert page.locator("#question textarea").input_value() == "What is seen?"


def test_an_intervention_changes_the_shown_answer(open_page):
    page = open_page()
    open_example(page)
    open_tab(page, "Does it matter?")
    watch_status(page)
    page.locator("[data-arm=black_out]").click()
    said = finished(page)
    shown = page.locator("#whatif")
    shown.get_by_text("Before", exact=True).wait_for()
    before = page.evaluate("document.querySelector('h2.lo-turn') !== null")
    assert before and "The answer changed." in said
    assert "The object is blue." in shown.inner_text() and "After: black out" in shown.inner_text()
    page.locator("#after-box > button").click()
    page.wait_for_selector("#after .li-cell")


def test_three_ways_stand_side_by_side(open_page):
    page = open_page()
    open_example(page)
    open_tab(page, "Compare")
    watch_status(page)
    page.locator("#three").click()
    finished(page)
    words = page.locator("#comparison").inner_text()
    assert all(way in words for way in ("Latents", "Words", "Direct", "states no window"))


def test_the_map_and_the_attention_are_drawn(open_page):
    page = open_page()
    open_example(page)
    open_tab(page, "Map")
    page.wait_for_selector("#map svg [data-latent]")
    page.evaluate("document.querySelector('#clip-player').currentTime = 5")
    page.locator("#map svg [data-latent]").last.click(force=True)
    page.wait_for_function("document.querySelector('#clip-player').currentTime < 4")
    open_tab(page, "Attention")
    watch_status(page)
    page.locator("#attend").click()
    finished(page)
    assert "by way of latents" in page.locator("#attention").inner_text()


def test_umap_is_drawn_while_everything_else_goes_on(open_page):
    page = open_page()
    open_example(page)
    open_tab(page, "Map")
    page.locator("#map .lv-map, #map svg").first.wait_for()
    page.locator("#umap").click()
    page.locator("#map-status .lo-status[data-kind=busy]").wait_for()
    open_tab(page, "Latents")
    page.locator("#map-status").evaluate("node => (window.line = node.querySelector('.lo-status'))")
    ask(page, "Where is the object when the chirp plays?")
    open_tab(page, "Map")
    page.wait_for_function("line.textContent.includes('UMAP is done')", timeout=150_000)
    assert "UMAP: neighbours stay neighbours" in page.locator("#map").inner_text()


def test_the_reel_of_an_answer_is_cut_and_downloaded(open_page, tmp_path):
    page = open_page()
    open_example(page)
    page.locator("#make-reel").click()
    page.locator("#download-reel").wait_for()
    with page.expect_download() as download:
        page.locator("#download-reel").click()
    file = tmp_path / "reel.mp4"
    download.value.save_as(file)
    reel = probe(file)
    assert reel.video_codec == "h264" and reel.audio_codec and reel.duration_s > 1


def test_a_clip_that_a_visitor_brought_comes_back_with_its_answer(open_page, tmp_path):
    world, question = draw_questions("test", 1, seed=3)[0]
    write_clip(world, tmp_path / "mine.mp4")
    page = open_page()
    page.locator("#file input[type=file]").set_input_files(tmp_path / "mine.mp4")
    page.locator("#status", has_text="mine.mp4 is ready").wait_for()
    ask(page, question.text)
    page.wait_for_function("localStorage.getItem('latentomni-runs')?.length > 150")
    open_tab(page, "Runs")
    run = page.locator(".lo-run").first.get_attribute("data-run")
    later = open_page(query=f"?run={run}")
    later.wait_for_function("document.querySelector('video#clip-player')?.videoWidth > 0")
    assert "mine.mp4" in later.locator(".lo-facts").inner_text()
    ask(later, question.text)


def test_a_trace_is_downloaded_and_opened_again(open_page, tmp_path):
    page = open_page()
    open_example(page)
    ask(page, "What shape do you see while the chirp plays?")
    text = page.locator("#inspector .li-text").inner_text()
    page.locator("#download-trace").wait_for()
    with page.expect_download() as download:
        page.locator("#download-trace").click()
    file = tmp_path / "kept.trace.zip"
    download.value.save_as(file)
    again = open_page()
    again.locator("#file input[type=file]").set_input_files(file)
    again.wait_for_selector(CELL)
    assert again.locator("#inspector .li-text").inner_text() == text


def test_the_browser_remembers_runs_and_settings_and_a_link_opens_a_run(open_page):
    page = open_page()
    open_example(page)
    page.locator("#mode").get_by_label("Direct").check()
    ask(page, "What shape do you see while the chirp plays?")
    page.wait_for_function("localStorage.getItem('latentomni-runs')?.length > 150 && localStorage.getItem('latentomni-settings')?.length > 150")
    page.reload()
    page.wait_for_selector(".lo-hint")
    page.wait_for_function("document.querySelector('#mode input[value=direct]').checked")
    open_tab(page, "Runs")
    run = page.locator(".lo-run").first.get_attribute("data-run")
    page.locator(".lo-run").first.get_by_role("button", name="open").click()
    page.wait_for_selector("h2.lo-turn")
    other = open_page(query=f"?run={run}")
    other.locator("h2.lo-turn", has_text="What shape").wait_for()
    gone = open_page(query=f"?run={'x' * 22}")
    gone.locator("#status .lo-status[data-kind=error]").wait_for()
    assert "no run of that name" in gone.locator("#status .lo-status").inner_text()


def test_the_page_speaks_chinese_and_the_guide_stays_away(open_page):
    page = open_page()
    page.locator(".lo-guide button").click()
    page.locator("#language").click()
    page.get_by_role("button", name="提问", exact=True).wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh"
    page.locator("#ask").click()
    page.locator("#status", has_text="问题是空的").wait_for()
    page.reload()
    page.get_by_role("button", name="提问", exact=True).wait_for()
    assert page.locator(".lo-guide").is_hidden()
    page.locator("#language").click()
    page.get_by_role("button", name="Ask", exact=True).wait_for()


def test_in_chinese_only_names_and_what_people_and_models_wrote_stay_english(open_page):
    page = open_page()
    page.locator("#language").click()
    open_example(page)
    page.locator(CELL).first.click()
    page.locator("#settings > button").click()
    found = set(page.evaluate(ENGLISH))
    for tab in range(1, len(TABS)):
        page.locator("#tabs [role=tab]").nth(tab).click()
        if tab == 1:
            watch_status(page)
            page.locator("#tab-matter .lo-arm").first.click()
            finished(page)
            page.locator("#tab-matter .li-card").first.wait_for()
        page.wait_for_timeout(400)
        found |= set(page.evaluate(ENGLISH))
    recorded = [Trace.load(example.trace) for example in gallery()]
    texts = [*(text for trace in recorded for text in (trace.question, trace.text)), *(text for example in gallery() for text in example.questions)]
    known = {word for text in texts for word in re.findall("[a-z]+", text.lower())} | {"latentomni", "nano", "pca", "umap", "english", "colour", "mp"}
    assert {text for text in found if set(re.findall("[a-z]{2,}", text.lower())) - known} == set()


def test_a_self_test_says_what_was_right(open_page):
    page = open_page()
    watch_status(page)
    page.locator("#selftest").click()
    page.locator(".lo-findings li").nth(3).wait_for()
    found = page.locator(".lo-findings li").all_inner_texts()
    assert [sentence.split()[0] for sentence in found] == ["Answer:", "Window:", "Evidence", "Evidence"]
    page.locator(".li-window.is-true").first.wait_for()
    assert "true window" in page.locator(".li-timeline .li-legend").inner_text()
    assert page.evaluate("document.querySelector('#clip-player').videoWidth") == 448


def test_the_keyboard_alone_reaches_an_answer_and_its_latents(open_page):
    page = open_page()

    def tab_to(selector, limit=80):
        for _ in range(limit):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{limit} times Tab did not reach {selector}")

    tab_to(".lo-card")
    page.keyboard.press("Enter")
    page.wait_for_selector(CELL)
    tab_to("#question textarea")
    page.keyboard.type("Where is the object when the chirp plays?")
    watch_status(page)
    page.keyboard.press("Enter")
    finished(page)
    tab_to(".li-cell")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#inspector .li-cell[aria-pressed=true]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_has_a_serious_barrier(open_page, scheme):
    page = open_page(color_scheme=scheme)
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    open_example(page)
    axe, serious = Axe(), {}
    for name in TABS:
        open_tab(page, name)
        page.locator(f"[role=tab][aria-selected=true]:has-text('{name}')").wait_for()
        for found in axe.run(page).response["violations"]:
            if found["impact"] in ("serious", "critical"):
                serious[name, found["id"]] = [node["html"][:160] for node in found["nodes"]]
    assert serious == {}


def test_a_phone_needs_no_horizontal_scrolling(open_page):
    page = open_page(width_px=400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    open_example(page)
    widths = {}
    for name in TABS:
        tab = page.get_by_role("tab", name=name)
        if not tab.is_visible():  # on a narrow screen the last tabs stand in a menu
            page.locator("#tabs .overflow-menu > button").click()
            tab = page.locator("#tabs .overflow-dropdown button", has_text=name)
        tab.click()
        widths[name] = page.evaluate("document.documentElement.scrollWidth")
    assert set(widths.values()) == {400}, widths
