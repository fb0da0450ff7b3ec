"""Settings: what is out of bounds is refused in a sentence, what is saved reads back."""

import pytest

from latentomni.config import (
    AttentionFlow,
    LatentSpec,
    MediaLimits,
    Mode,
    PositionVariant,
    ReadingSpec,
    SamplingSpec,
    VideoSpec,
)
from latentomni.errors import RequestError


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LatentSpec(instants=0), "LatentSpec.instants must be at least 1, got 0"),
        (lambda: LatentSpec(columns=-1), "columns"),
        (lambda: LatentSpec(max_window_tokens=0), "max_window_tokens"),
        (lambda: LatentSpec(flow="closed"), "'closed'.*open, paper, strict"),
        (lambda: LatentSpec(positions="elsewhere"), "'elsewhere'.*absolute"),
        (lambda: LatentSpec.from_dict({"instants": 2, "depth": 3}), "depth"),
        (lambda: VideoSpec(fps=0), "fps must be positive, got 0"),
        (lambda: VideoSpec(min_pixels=100, max_pixels=99), "min_pixels"),
        (lambda: MediaLimits(max_bytes=0), "max_bytes must be positive"),
        (lambda: SamplingSpec(temperature=-0.1), "temperature must be between 0 and 5, got -0.1"),
        (lambda: SamplingSpec(temperature=float("nan")), "temperature"),
        (lambda: SamplingSpec(top_p=0), "top_p"),
        (lambda: SamplingSpec(max_new_tokens=0), "max_new_tokens"),
        (lambda: SamplingSpec(max_blocks=65), "max_blocks"),
        (lambda: ReadingSpec(fps=0), "fps must be between 0.05 and 30, got 0"),
        (lambda: ReadingSpec(fps=float("nan")), "fps must be"),
        (lambda: ReadingSpec(max_pixels=10), "max_pixels must be 784 to 602112, got 10"),
        (lambda: ReadingSpec(start_s=-1), "starts at 0 s or later, got -1"),
        (lambda: ReadingSpec(start_s=float("inf")), "starts at 0 s or later"),
        (lambda: ReadingSpec(start_s=3, end_s=3.05), r"at least 0.1 s after its start, got 3.0 to 3.05 s"),
        (lambda: ReadingSpec(end_s=float("nan")), "cut ends"),
        (lambda: ReadingSpec(picture=False, sound=False), "both switched off"),
        (lambda: ReadingSpec.from_dict({"fps": "fast"}), "fps must be a number, got 'fast'"),
        (lambda: ReadingSpec(sound="no"), "sound must be yes or no, got 'no'"),
        (lambda: ReadingSpec(fps=True), "fps must be a number, got True"),
        (lambda: ReadingSpec(start_s=10**400), "start_s must be a number, got 1000"),
        (lambda: ReadingSpec(max_pixels=1e5), "max_pixels must be a whole number"),
        (lambda: SamplingSpec(temperature=[]), r"temperature must be a number, got \[\]"),
        (lambda: SamplingSpec(seed=2**63), "seed must be a whole number"),
        (lambda: SamplingSpec(max_new_tokens=None), "max_new_tokens must be a whole number, got None"),
        (lambda: Mode(["latent"] * 99), r"unknown Mode '\['latent', .{1,40}\.\.\.'"),
        (lambda: ReadingSpec.from_dict({"speed": 2}), r"unknown reading settings \['speed'\]"),
        (lambda: LatentSpec().changed({"rows": 3}), r"unknown latent settings \['rows'\]; known are \['flow', 'instants', 'positions'\]"),
        (lambda: LatentSpec().changed({"instants": 65}), "1 to 64 instants, got 65"),
        (lambda: LatentSpec().changed({"instants": 2.5}), "1 to 64 instants"),
        (lambda: LatentSpec().changed({"flow": "closed"}), "'closed'"),
        (lambda: Mode("loud"), "'loud'.*latent, text-cot, direct"),
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(make, message):
    with pytest.raises(RequestError, match=message):
        make()


def test_the_default_block_is_the_papers():
    spec = LatentSpec()
    assert (spec.n_visual, spec.n_audio, spec.n_latents, spec.echoes) == (32, 8, 40, False)


@pytest.mark.parametrize("flow", AttentionFlow)
@pytest.mark.parametrize("positions", PositionVariant)
def test_a_spec_reads_back_from_plain_values(flow, positions):
    spec = LatentSpec(instants=3, rows=2, columns=1, flow=flow, positions=positions, writes_window=True, has_head=True)
    values = spec.to_dict()
    assert {type(v) for v in values.values()} <= {str, int, bool}
    assert LatentSpec.from_dict(values) == spec
    assert spec.echoes == (flow is AttentionFlow.STRICT)


def test_names_print_as_they_are_written():
    assert [str(m) for m in Mode] == ["latent", "text-cot", "direct"]
    assert f"{AttentionFlow('strict')}" == "strict"


def test_a_reading_reads_back_and_changes_the_models_video_alone_where_it_says_so():
    reading = ReadingSpec(fps=4, start_s=1, end_s=2.5, sound=False)
    assert ReadingSpec.from_dict(reading.to_dict()) == reading == ReadingSpec(fps=4.0, start_s=1.0, end_s=2.5, sound=False)
    assert ReadingSpec.from_dict({}) == ReadingSpec() and ReadingSpec().changes == {}
    assert reading.changes == {"fps": 4.0, "start_s": 1.0, "end_s": 2.5, "sound": False}
    trained = VideoSpec(fps=2, min_pixels=3136, max_pixels=3136, max_frames=9)
    assert ReadingSpec().video(trained) == trained
    assert reading.video(trained) == VideoSpec(fps=4, min_pixels=3136, max_pixels=3136, max_frames=9)
    assert ReadingSpec(max_pixels=784).video(trained) == VideoSpec(fps=2, min_pixels=784, max_pixels=784, max_frames=9)


def test_a_spec_changes_only_where_asked():
    spec = LatentSpec(instants=3, rows=2, columns=1, writes_window=True)
    assert spec.changed(None) == spec.changed({}) == spec.changed({"instants": None, "flow": None}) == spec
    changed = spec.changed({"instants": 5, "flow": "strict"})
    assert (changed.instants, changed.flow, changed.rows, changed.writes_window) == (5, AttentionFlow.STRICT, 2, True)
