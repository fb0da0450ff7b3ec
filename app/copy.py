"""Every text of the page, in one place."""

__all__ = ["ERRORS", "LABELS", "STATUS", "about", "caption", "notices"]

from latentomni.trace import Trace

LABELS = {
    "tagline": "Ask about a clip, and watch every latent the model computes on its way to the answer.",
    "examples": "Recorded examples, open at once",
    "file": "File",
    "drop": "Video, sound, or a saved trace (.zip)",
    "webcam": "Webcam",
    "microphone": "Microphone",
    "question": "Question",
    "placeholder": "Ask about the clip",
    "mode": "How to answer",
    "settings": "Settings",
    "temperature": "Temperature (0 always takes the likeliest word)",
    "seed": "Seed",
    "max_tokens": "Longest answer, in tokens",
    "trace": "Trace (.zip)",
    "report": "Report (.html)",
}

STATUS = {
    "idle": "Choose an example, or bring a clip and ask.",
    "ready": "{name} is ready. Ask a question about it.",
    "recorded": "Recorded answer, shown without running the model. Ask something else, or press Retry to run it now.",
    "opened": "Saved answer, shown without running the model.",
    "waiting": "Waiting for the model",
    "loading": "Loading {model}; the first question takes a little longer",
    "reading": "Reading {name}",
    "encoding": "Encoding pictures and sound",
    "answering": "Answering",
    "stopping": "Stopping",
    "stopped": "Stopped. What had been computed is kept.",
    "done": "Done in {seconds:.1f} s.",
}

ERRORS = {
    "no_clip": "There is no clip yet: choose an example or bring a video or a sound first.",
    "no_clip_in_trace": "This saved answer came without its clip; upload the clip to ask about it.",
    "no_question": "The question is empty; type what you want to know about the clip.",
    "nothing_to_retry": "There is no question to repeat yet.",
    "busy": "An answer is being computed; stop it first, or wait until it is done.",
    "gone": "That is no longer there; reload the page.",
    "unexpected": "Something went wrong on our side and has been logged. Please try again, or try another clip.",
}

_MODES = {"latent": "with latents", "text-cot": "thinking in words", "direct": "direct answer"}
_NANO_IS = "nano is a tiny model that ships with this project. It knows AV World only: short drawn clips with 24 coloured shapes and 6 sounds."
_NANO_FOREIGN = "nano knows AV World only (24 coloured shapes, 6 sounds). If this clip is anything else, the answer is a guess and the latents mean nothing."


def about(name: str) -> tuple[str, str]:
    """What the model of this name can do, and what it cannot."""
    if name == "nano":
        return _NANO_IS, "Real videos, speech and music mean nothing to it; it answers as if they were AV World."
    return (
        f"Answers come from the checkpoint {name}.",
        "It may be wrong with confidence; check what it says against the clip.",
    )


def notices(trace: Trace, is_foreign: bool) -> list[str]:
    """What a reader of this answer must know. is_foreign: the clip was brought by a visitor."""
    said = [*trace.clip.notices, *trace.notices]
    if trace.weights == "random":
        said.append("This checkpoint has random weights; it was never trained, and its answers are noise.")
    elif trace.model == "nano" and is_foreign:
        said.append(_NANO_FOREIGN)
    return list(dict.fromkeys(said))


def caption(trace: Trace, true_answer: str = "") -> str:
    """One line of facts under the question; true_answer where it is known."""
    facts = [trace.model, _MODES.get(trace.mode, trace.mode)]
    if trace.reason != "running":
        facts += [f"{trace.tokens} token{'s' * (trace.tokens != 1)}", f"{trace.elapsed_s:.1f} s"]
    return ", ".join(facts) + (f". True answer: {true_answer}" if true_answer else "")
