"""A changed answer that is ready to be gone on with: what stays of it, what stands in its place, and the matched control.

Dimensions: S blocks of the answer, K latents per block, M donors, D hidden.
"""

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from latentomni.anchors import anchors_over
from latentomni.arms import Arm, Change, ClipArm
from latentomni.clip_evidence import Evidence
from latentomni.clock import Window
from latentomni.config import Mode
from latentomni.errors import RequestError, require
from latentomni.events import Event, LatentClosed, LatentOpened, LatentStep, Started
from latentomni.generation import Progress
from latentomni.interventions import Material, black_out, intervene, other_window, reopen, shift_sound
from latentomni.media import Clip
from latentomni.processing import add_question, new_sequence
from latentomni.replays import Replay
from latentomni.runtime import Runtime, clip_record
from latentomni.sequence import ClipFeatures, Sequence
from latentomni.trace import Trace

__all__ = ["Variant", "change_clip", "change_latents"]

_OF_OTHER_CLIPS = (Arm.MEAN, Arm.NOISE, Arm.OTHER_CLIP, Arm.VISUAL_ONLY, Arm.AUDIO_ONLY)


@dataclass(frozen=True, eq=False)
class Variant:
    """row, control: to go on from; control_what says what the latter's change is. started, begun: what there is already, as
    events. answer_start: index of the answer's first token; None where blocks are still to come. sentence: what was changed."""

    row: Sequence
    started: Started
    begun: list[Event]
    evidence: Evidence
    progress: Progress
    answer_start: int | None
    sentence: str
    control: Sequence | None = None
    control_what: str = ""
    notices: tuple[str, ...] = ()


def change_latents(runtime: Runtime, clip: Clip, given: Replay, change: Change, seed: int) -> Variant:
    """The answer up to the close of its last block, with other latents. Control: the same latents, moved as far at random."""
    row, trace, arm = given.row, given.trace, change.arm
    require(bool(row.windows), "The answer has no latent block to change; ask in latent mode, or change the clip (black_out, mute, shift_sound).")
    where, random = _chosen(row, change), torch.Generator().manual_seed(seed)
    material = _material(runtime, clip, given, arm, where, np.random.default_rng(seed))
    intact, changed = (intervene(row, a, material, random, where) for a in (Arm.INTACT, arm))
    control, notices = None, ["The true windows are not known here; the features are those of the stated ones."] if arm is Arm.ORACLE else []
    if arm.removes:
        notices.append("There is no matched control: nothing else of the answer is as many tokens.")
    elif not all(map(torch.equal, intact.latents, changed.latents)):
        control = replace(intact, latents=_moved_at_random(intact.latents, changed.latents, random))
    elif arm is not Arm.INTACT:
        notices.append("This arm changed nothing: what it puts in their place are these very latents.")
    stay = [b for b in range(len(where)) if not (arm.removes and where[b, 0])]
    vectors = {b: changed.latents[i * row.spec.n_latents :][: row.spec.n_latents] for i, b in enumerate(stay)}
    last = len(trace.blocks) - 1
    begun, evidence = _begun(trace, trace.blocks[last].text_offset, vectors), runtime.encode(clip)[1]
    what = "The same latents were moved as far, each in a random direction."
    return Variant(changed, _started(trace, clip, evidence), begun, evidence, _progress(trace, last), len(changed), change.sentence(),
                   control, what, tuple(notices))  # fmt: skip


def _chosen(row: Sequence, change: Change) -> torch.Tensor:
    """(S, K) bool."""
    blocks, k, n_visual = len(row.windows), row.spec.n_latents, row.spec.n_visual
    where = torch.ones(blocks, k, dtype=torch.bool)
    if change.block is not None:
        require(change.block < blocks, f"There is no block {change.block}; the answer has {blocks}, counted from 0.")
        where[torch.arange(blocks) != change.block] = False
    if change.latent is not None:
        require(change.latent < k, f"There is no latent {change.latent}; a block has {k}, counted from 0, the first {n_visual} visual.")
        where[:, torch.arange(k) != change.latent] = False
    if change.modality:
        where[:, (torch.arange(k) < n_visual) != (change.modality == "visual")] = False
    require(bool(where.any()), f"There is no {change.target}; of {k} latents the first {n_visual} are visual, the others audio.")
    return where


def _material(runtime: Runtime, clip: Clip, given: Replay, arm: Arm, where: torch.Tensor, rng: np.random.Generator) -> Material:
    row, thinker = given.row, given.thinker
    material = Material(None, thinker.embed(torch.tensor(row.ids.latent_pad, device=thinker.device)).detach())
    own = torch.stack(row.latents).view(len(row.windows), row.spec.n_latents, -1)
    if arm in _OF_OTHER_CLIPS:
        donors = runtime.donors
        if donors is None or (donors.latents.shape[0], donors.n_visual) != (row.spec.n_latents, row.spec.n_visual):
            raise RequestError(f"The arm {arm} takes latents about other clips, and there is no bank of them that fits; choose zero or shuffled.")
        bank = torch.from_numpy(donors.latents.transpose(1, 0, 2).astype(np.float32))
        return replace(material, bank=bank, donor=bank[rng.choice(len(bank), len(own), replace=False)])
    if arm is Arm.OTHER_TIME:
        windows = list(row.windows)
        for b in np.flatnonzero(where.any(1).numpy()):
            windows[b] = _another(windows[b], clip, row.windows, rng)
            require(windows[b] is not None, f"There is no room in this clip ({clip.duration_s:.1f} s) for another window as long as "
                    f"{row.windows[b]} that the answer does not state; choose another arm.")  # fmt: skip
        return replace(material, other_time=anchors_over(own, row.clip, windows, row.spec))
    return replace(material, oracle=anchors_over(own, row.clip, row.windows, row.spec)) if arm is Arm.ORACLE else material


def _another(window: Window, clip: Clip, avoid: list[Window], rng: np.random.Generator) -> Window | None:
    return other_window(window, clip.duration_s, avoid, rng)


def _moved_at_random(own: list[torch.Tensor], changed: list[torch.Tensor], random: torch.Generator) -> list[torch.Tensor]:
    moved = []
    for a, b in zip(own, changed, strict=True):
        direction = torch.randn(len(a), generator=random).to(a)
        moved.append(a + direction * ((b - a).norm() / direction.norm()))
    return moved


def change_clip(runtime: Runtime, clip: Clip, given: Replay, change: Change, seed: int) -> Variant:
    """The answer up to the latents of its first block, about a changed clip. Control: the same change elsewhere in the clip."""
    trace, stated = given.trace, [block.window for block in given.trace.blocks]
    windows = _changed_windows(clip, stated, change)
    changed = _altered(clip, change, windows)
    features = given.thinker.encode_clip(changed)
    evidence = Evidence(features, runtime.donors if trace.has_null else None)
    others, avoid, rng = [], [*windows, *stated], np.random.default_rng(seed)
    for window in windows:
        others.append(_another(window, clip, [*avoid, *(w for w in others if w)], rng))
    control, notices = None, ()
    if not windows:
        notices = ("There is no matched control: the whole sound was moved, so nothing is left to compare with.",)
    elif None in others:
        notices = ("There is no matched control: the clip has no room for another window of this length that the answer does not state.",)
    else:
        control = _reopened(given, given.thinker.encode_clip(_altered(clip, change, tuple(others))))
    begun = _begun(trace, trace.blocks[0].text_offset, {}) if stated else []
    progress = _progress(trace, 0) if stated else Progress()
    what = f"The same was done elsewhere: {change.sentence(tuple(others))}" if control is not None else ""
    return Variant(_reopened(given, features), _started(trace, changed, evidence), begun, evidence, progress, None,
                   change.sentence(windows), control, what, notices)  # fmt: skip


def _changed_windows(clip: Clip, stated: list[Window], change: Change) -> tuple[Window, ...]:
    """None for the whole clip."""
    arm = change.arm
    require(clip.waveform is not None or arm is ClipArm.BLACK_OUT, f"This clip has no sound, so {arm} changes nothing; choose black_out.")
    if change.block is not None and change.window is None:
        require(change.block < len(stated), f"There is no block {change.block}; the answer has {len(stated)}, counted from 0.")
        return (stated[change.block],)
    if change.window is None:
        require(bool(stated) or arm is ClipArm.SHIFT_SOUND, f"The answer states no window for {arm}; say which window of the clip is meant.")
        return () if arm is ClipArm.SHIFT_SOUND else tuple(dict.fromkeys(stated))
    window, duration_s = change.window, clip.duration_s
    require(window.start_s < duration_s, f"The window {window} lies behind the end of the clip ({duration_s:.1f} s); choose one inside.")
    return (Window(window.start_s, min(window.end_s, duration_s)),)


def _altered(clip: Clip, change: Change, windows: tuple[Window, ...]) -> Clip:
    """A clip of its own name and hash, so that nobody takes it for the file."""
    done = f"{change.arm} {windows} {change.shift_s if change.arm is ClipArm.SHIFT_SOUND else ''}"
    altered = shift_sound(clip, change.shift_s) if not windows else clip
    for window in windows:
        if change.arm is ClipArm.SHIFT_SOUND:
            altered = shift_sound(altered, change.shift_s, window)
        else:
            altered = black_out(altered, window, picture=change.arm is ClipArm.BLACK_OUT)
    return replace(altered, name=f"{clip.name} (changed)", sha256=hashlib.sha256(f"{clip.sha256} {done}".encode()).hexdigest())


def _reopened(given: Replay, features: ClipFeatures) -> Sequence:
    if given.row.windows:
        return reopen(given.row, 0, features)
    thinker = given.thinker
    row = new_sequence(features, given.row.spec, thinker.ids, thinker.encode_text)
    add_question(row, given.trace.question, Mode(given.trace.mode), thinker.encode_text)
    return row


def _started(trace: Trace, clip: Clip, evidence: Evidence) -> Started:
    kept = {f.name: getattr(trace, f.name) for f in fields(Started)}
    return Started(**{**kept, "clip": clip_record(clip), "visual": evidence.moments["visual"], "audio": evidence.moments["audio"]})


def _begun(trace: Trace, until: int, vectors: dict[int, list[torch.Tensor]]) -> list[Event]:
    """The events of an answer before its character `until`; of its blocks those in `vectors`, with these latents."""
    events: list[Event] = []
    said, deltas = 0, iter(trace.deltas)
    for b, block in enumerate(trace.blocks):
        while said < min(block.text_offset, until):
            events.append(next(deltas))
            said += len(events[-1].text)
        if b in vectors:
            number = list(vectors).index(b)
            events.append(LatentOpened(number, block.window, block.window_source, block.opened_s))
            events += [
                LatentStep(number, i, z.modality, z.instant, z.cell, z.time_s, vector.float().cpu().numpy(), elapsed_s=z.elapsed_s)
                for i, (z, vector) in enumerate(zip(block.latents, vectors[b], strict=True))
            ]
            events.append(LatentClosed(number, None, block.closed_s))
    return events


def _progress(trace: Trace, block: int) -> Progress:
    """What the answer had come to when it opened block number `block`."""
    said, tokens, until = 0, block + 1, trace.blocks[block].text_offset  # a trigger is a token, too
    for delta in trace.deltas:
        if said >= until:
            break
        said, tokens = said + len(delta.text), tokens + len(delta.token_ids)
    return Progress(trace.text[:until], tokens, block + 1)
