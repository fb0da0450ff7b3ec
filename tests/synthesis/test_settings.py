"""Roles, settings and sources from files: what is wrong in them is told before anything is asked."""

import json

import pytest

from latentomni.errors import DataError, RequestError
from latentomni.synthesis import Role, Settings, avworld_sources, read_settings, read_sources
from latentomni.synthesis.settings import ROLES
from latentomni.synthesis.sources import media_path


@pytest.mark.parametrize(
    "values",
    [{"concurrency": "8"}, {"concurrency": 2.5}, {"concurrency": True}, {"price": "12"}, {"price": ["1", "2"]}, {"price": 3}, {"price": [0, float("nan")]},
     {"endpoint": 5}, {"endpoint": "http://["}, {"media": "no"}, {"key_variable": None}, {"retries": 2.5}, {"model": 5}, {"timeout_s": "3"}],
)  # fmt: skip
def test_a_role_of_wrong_types_is_told(tmp_path, values):
    file, one = tmp_path / "roles.json", {"endpoint": "http://x/v1", "model": "m"}
    file.write_text(json.dumps({"roles": {**dict.fromkeys(ROLES, one), "judge": {**one, **values}}}))
    with pytest.raises(RequestError, match=f"{next(iter(values)).removesuffix('_s')}"):
        read_settings(file)


@pytest.mark.parametrize("values", [{"seed": "a"}, {"attempts": 2.5}, {"gate": "no"}, {"roles": ["abc"]}, {"roles": None}, {"max_imbalance": float("inf")}])
def test_settings_of_wrong_types_are_told(tmp_path, values):
    file, one = tmp_path / "roles.json", {"endpoint": "http://x/v1", "model": "m"}
    file.write_text(json.dumps({"roles": dict.fromkeys(ROLES, one), **values}))
    with pytest.raises(RequestError, match=next(iter(values))):
        read_settings(file)


def test_an_address_with_a_password_is_refused_and_not_shown():
    with pytest.raises(RequestError, match="holds no password") as caught:
        Role("http://me:secret@host/v1", "m")
    assert "secret" not in str(caught.value)


def test_rows_and_settings_are_checked(tmp_path):
    file = tmp_path / "roles.json"
    for text, match in [
        ("[", "not JSON"), ("[]", "must be an object"), ('{"role": {}}', "unknown keys role"), ('{"roles": {"writer": {}}}', "cannot be used"),
        ('{"roles": {"writer": {"endpoint": "ftp://x", "model": "m"}}}', "http"),
        ('{"roles": {"writer": {"endpoint": "http://x", "model": "m"}}}', "missing"),
    ]:  # fmt: skip
        file.write_text(text)
        with pytest.raises(RequestError, match=match):
            read_settings(file)
    with pytest.raises(RequestError, match="cannot be read"):
        read_settings(tmp_path / "none.json")
    one = {"endpoint": "http://x/v1", "model": "m"}
    file.write_text(json.dumps({"roles": dict.fromkeys(("writer", "judge", "watcher", "listener", "editor", "reasoner", "auditor"), one), "min_total": 12}))
    assert read_settings(file) == Settings.of_one(Role("http://x/v1", "m"), min_total=12)


def test_sources_come_from_a_file(tmp_path):
    world = avworld_sources(1, seed=5)[0]
    clip = media_path(world, tmp_path)
    row = {"id": "a", "media": f"clips/{clip.name}", "caption": "A star and a bell.", "cut_s": 2.5}
    file = tmp_path / "captions.jsonl"
    file.write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "id": "b"}) + "\n")
    first, second = read_sources(file)
    assert (first.id, second.id, first.media, first.seed) == ("a", "b", str(clip), None)
    assert first.spans_s[0] == (0.0, 2.5) and first.spans_s[-1][1] == first.duration_s == pytest.approx(world.duration_s, abs=0.05)
    with pytest.raises(DataError, match="has no notes"):
        first.noted("seen")
    for bad in ({**row, "cut_s": 0}, {"id": "a"}, {**row, "notes": [[2, 1, "a", "b"]]}, {**row, "extra": 1}, {**row, "caption": " "}, [1]):
        file.write_text(json.dumps(bad) + "\n")
        with pytest.raises(DataError, match="line 1: a source is"):
            read_sources(file)
    for bad in ({**row, "cut_s": float("inf")}, {**row, "seed": 5}, {**row, "caption": "half \ud83d"}):
        file.write_text(f"\n{json.dumps(row)}\n\n{json.dumps({**bad, 'id': 'b'})}\n")
        with pytest.raises(DataError, match="line 4: a source is"):
            read_sources(file)
    for caption in ("one\u2028two\u0085three", "\U0001f514 $rings ${twice}"):
        file.write_text(json.dumps({**row, "caption": caption}, ensure_ascii=False) + "\r\n", encoding="utf-8", newline="")
        assert read_sources(file)[0].caption == caption
    file.write_text((json.dumps(row) + "\n") * 2)
    with pytest.raises(DataError, match="was there before"):
        read_sources(file)
