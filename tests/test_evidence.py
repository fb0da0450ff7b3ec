"""Evidence: exact self-match, honest p-values, and collapse measures that cannot be fooled together."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from latentomni.errors import CheckpointError
from latentomni.events import Match, Moments
from latentomni.evidence import DonorBank, EvidenceBank, Null, benjamini_hochberg, block_moment, collapse


def moments(features, cells_per_time=1):
    n = len(features)
    start_s = (np.arange(n) // cells_per_time).astype(np.float32)
    cells = np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
    return Moments(start_s, start_s + 1, cells, np.asarray(features, np.float32))


def donors(rng, slots=6, n=199, width=24, n_visual=4):
    return DonorBank(rng.normal(size=(slots, n, width)).astype(np.float16), n_visual)


@pytest.mark.parametrize("with_donors", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_latent_set_to_a_moment_finds_it_at_rank_1_among_hubs(seed, with_donors):
    rng = np.random.default_rng(seed)
    bank = donors(rng)
    features = rng.normal(size=(60, 24))
    features[:8] = bank.background("visual")[:8] + 0.01 * rng.normal(size=(8, 24))  # near to donors
    features[8:16] = features.mean(axis=0) + 0.05 * rng.normal(size=(8, 24))  # near to the mean
    features[16:32] = features[40] + 0.02 * rng.normal(size=(16, 24))  # a still scene
    evidence = EvidenceBank(moments(features), bank.background("visual") if with_donors else None)
    for row, feature in enumerate(features.astype(np.float32)):
        best = evidence.matches(feature)[0]
        assert (best.moment, best.rank) == (row, 1)
        assert best.score == pytest.approx(1.0, abs=1e-5)


def test_hub_moments_are_demoted():
    """A moment that every donor is near to wins by plain cosine, not after the correction."""
    hub, event, query = np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0.72, 0.70, 0.0])
    background = np.tile(np.array([0.9, 0.0, 0.4]), (50, 1)) * np.array([[1.0], [-1.0]]).repeat(25, axis=0)
    evidence = EvidenceBank(moments([hub, event]), background)
    assert query @ hub > query @ event
    assert evidence.matches(query.astype(np.float32))[0].moment == 1


def test_order_and_time_of_moments_do_not_change_scores():
    rng = np.random.default_rng(0)
    features, query = rng.normal(size=(20, 8)), rng.normal(size=(3, 8))
    order = rng.permutation(20)
    straight = EvidenceBank(moments(features)).nearest(query)
    shuffled = EvidenceBank(moments(features[order])).nearest(query)
    np.testing.assert_allclose(shuffled, straight[:, order], atol=1e-6)


def test_ranks_follow_scores_and_by_time_takes_the_best_cell():
    rng = np.random.default_rng(1)
    evidence = EvidenceBank(moments(rng.normal(size=(12, 8)), cells_per_time=4))
    query = rng.normal(size=8).astype(np.float32)
    scores = evidence.nearest(query[None])
    found = evidence.matches(query, top=12)
    assert [m.rank for m in found] == list(range(1, 13))
    assert [m.moment for m in found] == list(np.argsort(-scores[0]))
    np.testing.assert_array_equal(evidence.times_s, [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(evidence.by_time(scores), scores.reshape(1, 3, 4).max(axis=2))


@pytest.mark.parametrize("n", [0, 1])
def test_no_moment_and_one_moment(n):
    bank = donors(np.random.default_rng(2))
    for background in (None, bank.background("audio")):
        evidence = EvidenceBank(moments(np.ones((n, 24))), background)
        assert evidence.nearest(np.ones((3, 24), np.float32)).shape == (3, n)
        assert evidence.by_time(evidence.nearest(np.ones((3, 24), np.float32))).shape == (3, n)
        assert len(evidence.matches(np.ones(24, np.float32))) == n
    assert bank.null(evidence, 5).p(-np.inf) == 1.0


def test_p_values_are_exact_and_uniform_under_the_null():
    assert Null(np.array([1.0, 2.0, 3.0])).p(2.0) == 0.75
    assert Null(np.array([1.0, 2.0, 3.0])).p(9.0) == 0.25
    rng = np.random.default_rng(3)
    bank = donors(rng)
    evidence = EvidenceBank(moments(rng.normal(size=(40, 24))), bank.background("visual"))
    null = bank.null(evidence, 0)
    strangers = evidence.nearest(rng.normal(size=(400, 24))).max(axis=1)
    p = np.array([null.p(s) for s in strangers])
    assert p.min() >= 1 / 200
    assert 0.4 < p.mean() < 0.6
    own = evidence.matches(evidence.moments.features[7])[0]
    assert null.p(own.score) == 1 / 200


def test_only_scores_above_the_level_have_so_small_a_p():
    null = Null(np.sort(np.random.default_rng(1).normal(size=199)))
    level = null.level()
    assert null.p(np.nextafter(level, 9)) <= 0.05 < null.p(level)
    assert Null(np.arange(18.0)).level() is None  # 18 donors cannot give a p of 0.05
    assert Null(np.arange(19.0)).level() == 18.0


def test_moments_beside_one_share_its_time():
    bank = EvidenceBank(moments(np.random.default_rng(0).normal(size=(12, 8)), cells_per_time=4))
    assert bank.beside(6).tolist() == [4, 5, 6, 7]


def test_null_scores_donors_as_the_latent_itself_is_scored():
    bank = donors(np.random.default_rng(4))
    evidence = EvidenceBank(moments(np.random.default_rng(5).normal(size=(30, 24))), bank.background("visual"))
    one_by_one = sorted(evidence.matches(v.astype(np.float32))[0].score for v in bank.latents[3])
    np.testing.assert_allclose(bank.null(evidence, 3).statistics, one_by_one, atol=1e-6)


def test_bank_saved_equals_loaded(tmp_path):
    bank = donors(np.random.default_rng(6))
    bank.save(tmp_path / "donors.safetensors")
    loaded = DonorBank.from_file(tmp_path / "donors.safetensors")
    np.testing.assert_array_equal(loaded.latents, bank.latents)
    assert (loaded.latents.dtype, loaded.n_visual) == (np.float16, 4)


def test_malformed_banks_are_refused_with_a_sentence(tmp_path):
    path = tmp_path / "donors.safetensors"
    good = np.zeros((2, 199, 3), np.float16)
    files = [
        b"not a tensor file",
        ({"latents": good}, {"schema": "other/1", "n_visual": "1"}),
        ({"latents": good}, {"schema": "latentomni.donors/1"}),
        ({"latents": good}, {"schema": "latentomni.donors/1", "n_visual": "3"}),
        ({"latents": good[:, :198]}, {"schema": "latentomni.donors/1", "n_visual": "1"}),
        ({"latents": np.full_like(good, np.nan)}, {"schema": "latentomni.donors/1", "n_visual": "1"}),
        ({"other": good}, {"schema": "latentomni.donors/1", "n_visual": "1"}),
    ]
    for content in files:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content[0], path, content[1])
        with pytest.raises(CheckpointError, match="build it again"):
            DonorBank.from_file(path)
    with pytest.raises(CheckpointError):
        DonorBank.from_file(tmp_path / "missing.safetensors")


def test_benjamini_hochberg_against_hand_computed_values():
    np.testing.assert_allclose(benjamini_hochberg([0.01, 0.04, 0.03, 0.5]), [0.04, 0.16 / 3, 0.16 / 3, 0.5])
    np.testing.assert_allclose(benjamini_hochberg([0.9, 0.8]), [0.9, 0.9])
    assert benjamini_hochberg([]).shape == (0,)


def test_block_moment_is_the_majority_and_score_breaks_ties():
    def match(start_s, score):
        return (Match(0, start_s, start_s + 1, (0.0, 0.0, 1.0, 1.0), score, 1),)

    assert block_moment([match(2, 0.1), match(5, 0.9), match(2, 0.1)]) == (2, 3)
    assert block_moment([match(2, 0.1), match(5, 0.9), ()]) == (5, 6)
    assert block_moment([(), ()]) is None


def test_collapse_tells_healthy_from_collapsed_latents():
    rng = np.random.default_rng(7)
    anchors = rng.normal(size=(120, 4, 16))
    healthy = collapse(anchors + 0.1 * rng.normal(size=anchors.shape), anchors)
    assert healthy.between_clip_variance > 0.95
    assert healthy.segment_retrieval_top1 == 1.0
    assert healthy.effective_rank > 3
    assert abs(healthy.raw_cosine) < 0.05

    by_slot = collapse(rng.normal(size=(4, 16)) + 0.01 * rng.normal(size=anchors.shape), anchors)
    assert by_slot.between_clip_variance < 0.01
    assert by_slot.segment_retrieval_top1 < 0.1
    assert by_slot.raw_cosine > 0.99

    constant = collapse(np.ones((120, 4, 16)), anchors)
    assert (constant.between_clip_variance, constant.segment_retrieval_top1) == (0.0, 0.0)
    assert constant.effective_rank == pytest.approx(1.0, abs=1e-3)
    assert constant.raw_cosine == pytest.approx(1.0, abs=1e-5)
    assert collapse(anchors).segment_retrieval_top1 is None


def test_raw_cosine_equals_the_mean_over_pairs():
    x = np.random.default_rng(8).normal(size=(5, 2, 6)) + 1
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    pairs = [unit[a, k] @ unit[b, k] for k in range(2) for a in range(5) for b in range(5) if a != b]
    assert collapse(x).raw_cosine == pytest.approx(np.mean(pairs), abs=1e-6)
