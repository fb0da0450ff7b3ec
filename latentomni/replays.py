"""An answer given again from its trace: the very row of tokens and latents that a trace, being a record, does not hold."""

from collections.abc import Callable
from dataclasses import dataclass, fields

from latentomni.config import Mode, SamplingSpec
from latentomni.errors import RequestError, plain, require
from latentomni.media import Clip
from latentomni.modeling import Thinker
from latentomni.runtime import Runtime
from latentomni.sequence import Sequence
from latentomni.trace import Trace

__all__ = ["Replay", "replay", "require_finished", "sampling_of"]


@dataclass(frozen=True, eq=False)
class Replay:
    """row: as generation left it. prompt: tokens before the answer. trace: of the replay. thinker: with the settings of the run.
    notices: sentences about what is not as the replayed trace has it."""

    row: Sequence
    prompt: int
    trace: Trace
    thinker: Thinker
    notices: tuple[str, ...] = ()


def replay(runtime: Runtime, clip: Clip, trace: Trace, cancelled: Callable[[], bool] = lambda: False) -> Replay:
    """Decode the trace's question again, with its mode, sampling and settings, behind the clip alone.

    Raises RequestError for another clip or another model, and where it is stopped; MediaError where the clip is not encoded yet.
    """
    _check_same(runtime, clip, trace)
    own = runtime.spec.to_dict()
    latent = {name: trace.spec[name] for name in ("instants", "positions", "flow") if trace.spec.get(name, own[name]) != own[name]}
    row = runtime.conversation(clip, latent, cancelled)
    again = Trace.from_events(runtime.stream(clip, trace.question, Mode(trace.mode), sampling_of(trace), row, cancelled, latent))
    require_finished(again)
    notices = []
    if again.prompt_tokens != trace.prompt_tokens:
        notices.append("This question was asked in a conversation; it was asked again behind the clip alone.")
    if again.text != trace.text:
        notices.append(f'The trace says "{trace.answer}", but asked again the model says "{again.answer}", which is what was changed.')
    return Replay(row, again.prompt_tokens, again, runtime.thinker, tuple(notices))


def _check_same(runtime: Runtime, clip: Clip, trace: Trace) -> None:
    name, known, model = runtime.thinker.name, trace.clip, plain(trace.model, 80)
    require(trace.model == name, f"This trace is of the model '{model}', but '{name}' is loaded; load '{model}'.")
    got, expected = clip.sha256[:12], plain(known.sha256[:12])
    if clip.sha256 != known.sha256:
        raise RequestError(f"This trace is about {plain(known.name, 80)} (sha256 {expected}...), got {clip.name} (sha256 {got}...); give the clip it is about.")


def sampling_of(trace: Trace) -> SamplingSpec:
    """The sampling settings of a run."""
    unknown = sorted(set(trace.sampling) - {f.name for f in fields(SamplingSpec)})
    require(not unknown, f"This trace has sampling settings {plain(unknown)}, which are not known here; use the version that wrote it.")
    return SamplingSpec(**trace.sampling)


def require_finished(trace: Trace) -> None:
    """Raises RequestError for an answer that was stopped."""
    require(trace.reason != "cancelled", "Stopped before there was a new answer; start it again.")
