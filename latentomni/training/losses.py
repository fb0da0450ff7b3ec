"""Loss terms of a batch as sums, and the counts they are means over, so that micro-batches and processes share one mean.

Dimensions: B rows, T tokens, n latents of the batch, D hidden.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from latentomni.attention_flow import Kind
from latentomni.clock import POSITIONS_PER_SECOND
from latentomni.errors import require
from latentomni.modeling import Thinker
from latentomni.training.batches import Batch
from latentomni.training.feedback import Phase

__all__ = ["PRESETS", "LossSpec", "Objective", "Terms", "TimeProbes", "synchrony"]

Terms = dict[str, torch.Tensor]  # name -> sum of a term over the batch, unweighted
_CLOCK_BINS, _CLOCK_STEP_IDS = 24, POSITIONS_PER_SECOND // 2
_MAX_SHARPNESS = 100.0


@dataclass(frozen=True)
class LossSpec:
    """Weights of the terms: total = text + lambda1 * alignment + lambda2 * sync (paper eq. 7).

    alignment_kind: "mse" or "cosine". alignment_reduction: "sum" adds the squares over dimensions and takes the mean over latents
    (paper eq. 5), "mean" takes the mean over both (the released code); they differ by the number of dimensions. groups: weight
    of the cross-entropy of each group of text (1 unless given). clock, search: weights of the time probes, 0 without them.
    """

    alignment: float = 0.005
    alignment_kind: str = "mse"
    alignment_reduction: str = "sum"
    sync: float = 1.0
    groups: dict[str, float] = field(default_factory=dict)
    clock: float = 0.0
    search: float = 0.0

    def __post_init__(self) -> None:
        require(self.alignment_kind in ("mse", "cosine"), f"alignment_kind must be mse or cosine, got {self.alignment_kind!r}")
        require(self.alignment_reduction in ("sum", "mean"), f"alignment_reduction must be sum or mean, got {self.alignment_reduction!r}")

    def weight(self, name: str) -> float:
        """The weight of a term by its name; 0 of what is only watched."""
        return self.groups.get(name[3:], 1.0) if name.startswith("ce_") else float(getattr(self, name, 0.0))


PRESETS = {
    "paper": LossSpec(alignment=0.005, alignment_reduction="sum", sync=1.0),  # arXiv 2605.22012, section 3: lambda1, lambda2
    "upstream": LossSpec(alignment=0.1, alignment_reduction="mean", sync=1.0),  # the released sft_stage3.sh and its parser's default
}


class TimeProbes(torch.nn.Module):
    """Two linear readers of time inside the model, used in training only.

    clock: the half second of every media token, after the first layer. Rotary positions are relative; without this no
    token is told its own time. search: the middle of the window, after the second layer, at the words that are asked
    for ("bell", or "star" of "red star"). Without them the model finds what is asked for late, and when it was never (docs/LOG.md).
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.clock, self.search = torch.nn.Linear(hidden, _CLOCK_BINS), torch.nn.Linear(hidden, _CLOCK_BINS)

    def terms(self, states: list[torch.Tensor], batch: Batch) -> Terms:
        """states: (B, T, D) after each of the first two layers."""
        t = batch.positions[0, batch.media[0], batch.media[1]]
        is_media = (batch.layout.kind == Kind.MEDIA).to(t.device)
        first = torch.where(is_media, batch.positions[0], 1 << 30).amin(1) + 1  # behind the opening brackets
        time_bin = ((t - first[batch.media[0]]) // _CLOCK_STEP_IDS).clamp(0, _CLOCK_BINS - 1)
        told = self.clock(states[0][batch.media[0], batch.media[1]].float())
        row, token, middle = batch.asked
        found = self.search(states[1][row, token].float())
        return {
            "clock": F.cross_entropy(told, time_bin, reduction="sum"),
            "search": F.cross_entropy(found, middle // _CLOCK_STEP_IDS, reduction="sum"),
        }


def synchrony(predicted: torch.Tensor, batch: Batch, log_sharpness: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE between the predicted visual and audio latents of one moment against the other moments of the same
    sample, summed over moments (paper eq. 6; in the released code it acts on detached encoder tokens and cannot reach the model).

    predicted: (n, D). log_sharpness: minus the logarithm of the temperature, learned. Blocks about one moment share its
    latents' mean. A moment without picture or sound, or alone in its sample, does not count.
    """
    moments, number, counted = _moments(batch)
    means = []
    for chosen in (batch.is_visual, ~batch.is_visual):
        total = predicted.new_zeros(len(moments), predicted.shape[1]).index_add(0, number[chosen], predicted[chosen])
        means.append(F.normalize(total[counted], dim=1))
    sample = moments[counted, 0]
    logits = (means[0] @ means[1].T) * log_sharpness.exp().clamp(max=_MAX_SHARPNESS)
    logits = logits.masked_fill(sample[:, None] != sample[None], -torch.inf)
    target = torch.arange(len(sample), device=sample.device)
    return (F.cross_entropy(logits, target, reduction="sum") + F.cross_entropy(logits.T, target, reduction="sum")) / 2


def _moments(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moments (m, 2) as sample and time, the moment (n,) of every latent, and the numbers of the moments that count."""
    moments, number = torch.stack([batch.sample, batch.times], 1).unique(dim=0, return_inverse=True)
    whole = torch.ones(len(moments), dtype=torch.bool, device=moments.device)
    for chosen in (batch.is_visual & batch.exists, ~batch.is_visual & batch.exists):
        whole &= torch.zeros_like(whole).index_fill(0, number[chosen], True)
    alike = (moments[:, None, 0] == moments[None, :, 0]) & whole
    return moments, number, (whole & (alike.sum(1) > 1)).nonzero()[:, 0]


class Objective(torch.nn.Module):
    """Everything that is trained, as one module: a batch and what stands in its latent slots in, loss terms out.

    `forward` is the whole step's computation, so that a data-parallel wrapper around this module sees all of it.
    """

    def __init__(self, thinker: Thinker, spec: LossSpec) -> None:
        super().__init__()
        self.thinker, self.spec = thinker, spec
        self.model, self.head = thinker.model, thinker.head
        self.log_sharpness = torch.nn.Parameter(torch.tensor(1 / 0.07).log().to(thinker.device)) if spec.sync else None
        self.probes = TimeProbes(thinker.hidden_size).to(thinker.device) if spec.clock or spec.search else None

    @classmethod
    def of_language(cls, thinker: Thinker, spec: LossSpec) -> "Objective":
        """With everything but the towers to be trained."""
        thinker.model.requires_grad_(False)
        for module in (thinker.text_model, thinker.model.lm_head, thinker.head):
            module.requires_grad_(True)
        return cls(thinker, spec)

    def forward(self, batch: Batch, phase: Phase, seed: int = 0) -> tuple[Terms, torch.Tensor]:
        """Terms of a batch whose latent slots are filled as `phase` says, as sums, and the (n, D) vectors that stood in them."""
        with self.thinker.layer_states() if self.probes else nullcontext([]) as states:
            vectors, feedback = phase.fill(self.thinker, batch, seed)
            if feedback is None:
                states.clear()
                hidden = self.thinker.forward(batch.embeds(self.thinker, vectors), batch.positions, batch.mask, unread=batch.unread)
            else:
                hidden = feedback.patched(vectors)
                depth = len(self.thinker.text_model.layers)
                states[:2] = [feedback.whole(states[k], states[k - depth]) for k in range(2)] if self.probes else []
        return self.terms(hidden, batch, states[:2]), vectors

    def weight(self, name: str) -> float:
        return self.spec.weight(name)

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many each term of this batch is summed over, known before any of them is computed."""
        counts = {f"ce_{name}": batch.groups.count(name) for name in set(batch.groups)}
        counts["alignment"], counts["alignment_first"] = int(batch.exists.sum()), int(self._first(batch).sum())
        if self.log_sharpness is not None:
            counts["sync"] = len(_moments(batch)[2])
        return counts | ({"clock": batch.media.shape[1], "search": batch.asked.shape[1]} if self.probes else {})

    def terms(self, hidden: torch.Tensor, batch: Batch, states: list[torch.Tensor]) -> Terms:
        """hidden: (B, T, D) last hidden states. Logits are made only where text is supervised."""
        logits = self.thinker.logits(hidden[batch.text[0], batch.text[1]]).float()
        nll = F.cross_entropy(logits, batch.text[2], reduction="none")
        names = sorted(set(batch.groups))
        number = torch.tensor([names.index(g) for g in batch.groups], device=nll.device)
        terms = {f"ce_{name}": nll[number == k].sum() for k, name in enumerate(names)}
        predicted = self.thinker.latent(hidden[batch.latents[0], batch.latents[1]]).float()
        for name, chosen in (("alignment", batch.exists), ("alignment_first", self._first(batch))):
            terms[name] = self._alignment(predicted[chosen], batch.anchors[chosen])
        terms["alignment_first"] = terms["alignment_first"].detach()
        if self.log_sharpness is not None:
            terms["sync"] = synchrony(predicted, batch, self.log_sharpness)
        return terms | (self.probes.terms(states, batch) if self.probes else {})

    def _first(self, batch: Batch) -> torch.Tensor:
        """(n,) the first latents of blocks. Under anchors the others can be guessed from those before them, which decoding does not have: a
        low alignment beside a high one of the first latents is no sight yet (docs/LOG.md, item 58)."""
        return batch.exists & (torch.arange(len(batch.exists), device=batch.device) % self.thinker.spec.n_latents == 0)

    def _alignment(self, predicted: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        if self.spec.alignment_kind == "cosine":
            return (1 - F.cosine_similarity(predicted, anchors)).sum()
        squares = (predicted - anchors).square().sum()
        return squares if self.spec.alignment_reduction == "sum" else squares / anchors.shape[1]
