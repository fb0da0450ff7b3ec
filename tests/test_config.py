"""Settings: what is out of bounds is refused in a sentence, what is saved reads back."""

import pytest

from latentomni.config import AttentionFlow, LatentSpec, MediaLimits, Mode, PositionVariant, SamplingSpec, VideoSpec
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
