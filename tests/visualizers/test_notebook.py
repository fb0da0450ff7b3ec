"""The widget carries the same script as every other place, and draws the trace in a browser."""

import json
import sys
from dataclasses import replace

import pytest

from latentomni.errors import RequestError
from latentomni.trace import Trace
from visualizers.notebook import widget, widget_esm
from visualizers.page import component_css, component_js


def widget_page(value):
    module = widget_esm().replace("export default", "const widget =")
    return f"""<!doctype html><style>{component_css()}</style><body><div id="cell"></div><script type="module">{module}
      window.sent = {{}};
      const model = {{get: () => ({json.dumps(value)}), on() {{}}, off() {{}}, set: (name, v) => (sent[name] = v), save_changes() {{}}}};
      window.leave = widget.render({{model, el: document.getElementById("cell")}});
      </script>"""


def test_the_module_is_the_component_and_a_render_function():
    assert widget_esm().startswith(component_js())
    assert widget_esm().count("export default") == 1
    assert "render({model, el})" in widget_esm()


def test_widget_holds_the_run(trace):
    pytest.importorskip("anywidget")
    shown = widget(replace(trace, collapse={"between_clip_variance": 0.84}))
    assert shown.value["view"]["answer"] == "at 3 s"
    assert shown.value["view"]["collapse"]["between_clip_variance"] == 0.84
    assert shown.value["sound"].startswith("data:audio/wav;base64,")
    assert shown.chosen == []
    json.dumps(shown.value, allow_nan=False)


def test_without_anywidget_one_sentence_says_what_to_do(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(RequestError, match="pip install 'anywidget"):
        widget(trace)


@pytest.mark.parametrize("settings", [{}, {"sound": False, "picture": False}])
def test_it_draws_seeks_and_tells_the_kernel(open_page, events, settings):
    anywidget, playwright = pytest.importorskip("anywidget"), pytest.importorskip("playwright.sync_api")
    shown = widget(Trace.from_events(events(**settings)))
    assert isinstance(shown, anywidget.AnyWidget)
    page = open_page(widget_page(shown.value))
    assert page.locator(".li-cell").count() == 12
    if not settings:
        playwright.expect(page.locator("audio")).to_have_js_property("readyState", 4, timeout=30_000)
        page.locator(".li-cell[data-slot='2']").first.click()
        assert page.evaluate("document.querySelector('audio').currentTime") == 2
    else:
        page.locator(".li-cell[data-slot='2']").first.click()
    assert page.evaluate("sent.chosen") == [0, 2]
    page.evaluate("leave()")
    assert page.locator(".li-cell").count() == 0
