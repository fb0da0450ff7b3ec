"""Every text of the page, in one place; `chinese.py` holds the same texts in Chinese."""

__all__ = ["CHOICES", "ERRORS", "GUIDE", "LABELS", "STATUS", "about", "arms", "caption"]

from typing import Any

from latentomni.events import Finished
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
    "ask": "Ask",
    "stop": "Stop",
    "retry": "Retry",
    "clear": "Clear",
    # settings
    "mode": "How to answer",
    "settings": "Settings",
    "reset": "Reset the settings",
    "model": "Model",
    "model_name": "nano, a folder or a hub id",
    "quantization": "Weights",
    "full_precision": "as they are",
    "load": "Load this model",
    "words": "Words",
    "reading": "What the model reads of the clip",
    "latents": "Latents",
    "temperature": "Temperature (0 always takes the likeliest word)",
    "top_p": "Top-p (1 keeps every word)",
    "seed": "Seed",
    "max_tokens": "Longest answer, in tokens",
    "max_blocks": "Most latent blocks",
    "as_trained": "as trained",
    "fps": "Frames a second",
    "pixels": "Pixels, at most",
    "start": "From second",
    "end": "To second",
    "end_of_clip": "the end",
    "picture": "Picture",
    "sound": "Sound",
    "instants": "Instants of a block (each has a latent per cell and one for the sound)",
    "positions": "Where latents stand on the clip's clock",
    "flow": "Who may see the clip",
    # tabs
    "tab_latents": "Latents",
    "tab_matter": "Does it matter?",
    "tab_map": "Map",
    "tab_attention": "Attention",
    "tab_compare": "Compare",
    "tab_runs": "Runs",
    "trace": "Trace (.zip)",
    "report": "Report (.html)",
    "reel": "Make the evidence reel",
    "reel_file": "Reel (.mp4)",
    "selftest": "Self test",
    "selftest_intro": "Draws a fresh clip whose events are known, asks about it, and says what was right.",
    "matter_intro": "Change what the model computed, or the clip itself, and let it answer again. If the answer stays, what was changed did not matter for it.",
    "target": "What to change",
    "block": "Block {}",
    "which_block": "Block",
    "no_block": "no block",
    "modality": "Latents of",
    "window_start": "Window from, s",
    "window_end": "Window to, s",
    "shift": "Shift of the sound, s",
    "after": "The new answer's latents",
    "map_intro": "Every latent and every moment of the clip, placed so that what is similar lies close together. The lines follow the latents in their order.",
    "map_of": "Shown on the map",
    "pca": "PCA",
    "umap": "UMAP",
    "attention_intro": "How much attention each step gives to the clip directly, and how much to latents. The answer is decoded again for this.",
    "attend": "Compute the attention",
    "compare_intro": "The same question, clip and seed, answered with latents, with words, and directly. Or choose two runs about one clip.",
    "three": "Answer in all three ways",
    "first_run": "First run",
    "second_run": "Second run",
    "pair": "Compare",
    "runs_intro": "Your browser remembers these answers. They and their clips stay on this server for a week, and whoever has the link of a run can open it.",
}  # fmt: skip

GUIDE = (
    "Open a recorded example, or bring a clip and ask.",
    "Click a latent: the clip goes to the moment it is most similar to.",
    "Under Does it matter? change what was computed, and see whether the answer holds.",
)

CHOICES: dict[str, dict[str, str]] = {
    "mode": {"latent": "Latents", "text-cot": "Words", "direct": "Direct"},
    "positions": {
        "absolute": "in the clip's seconds",
        "relative": "in the window's seconds",
        "sequential": "one after the other",
        "upstream": "as the authors' code",
    },
    "flow": {"open": "all text and latents", "paper": "latents, and text before them", "strict": "latents only"},
    "target": {"all": "The whole answer", "block": "One block", "latent": "The chosen latent"},
    "modality": {"both": "picture and sound", "visual": "the picture", "audio": "the sound"},
    "map_of": {"shown": "This answer", "all": "All answers about this clip"},
}

STATUS = {
    "idle": "Choose an example, or bring a clip and ask.",
    "ready": "{name} is ready. Ask a question about it.",
    "recorded": "Recorded answer, shown without running the model. Ask something else, or press Retry to run it now.",
    "opened": "Saved answer, shown without running the model.",
    "waiting": "Waiting for the model",
    "loading": "Loading {model}; the first question takes a little longer",
    "switched": "{model} is loaded and answers from now on.",
    "reading": "Reading {name}",
    "encoding": "Encoding pictures and sound",
    "answering": "Answering",
    "stopping": "Stopping",
    "stopped": "Stopped. What had been computed is kept.",
    "done": "Done in {seconds} s.",
    "again": "Decoding the answer again",
    "flipped": "The answer changed. Both are shown under Does it matter?",
    "unflipped": "The answer stayed the same. Both are shown under Does it matter?",
    "way": "Answering, way {number} of {of}: {name}",
    "ways": "All three ways are shown under Compare.",
    "pair": "Both runs are shown under Compare.",
    "attention": "The attention of every step is shown.",
    "drawing": "Drawing a clip",
    "tested": "Self test done; what was right stands above the answer.",
    "reel_begins": "Cutting the cited moments together",
    "reel": "The reel is ready.",
    "link": "The link is copied.",
    "map": "Choose a latent to go to its moment.",
    "umap_begins": "UMAP runs in the background; its first run takes about a minute. Everything else keeps working.",
    "umap": "UMAP is {percent} % done",
    "umap_done": "UMAP is done, and kept with the run.",
    "reset": "The settings are plain again.",
}

ERRORS = {
    "no_clip": "There is no clip yet: choose an example or bring a video or a sound first.",
    "no_clip_in_trace": "This saved answer came without its clip; upload the clip to ask about it.",
    "no_question": "The question is empty; type what you want to know about the clip.",
    "nothing_to_retry": "There is no question to repeat yet.",
    "no_answer": "There is no answer yet; open an example or ask a question first.",
    "no_latent": "No latent is chosen; click one in the tab Latents, then come back.",
    "no_window": "The window ends before it begins; give a later end.",
    "no_pair": "Two different runs are needed; choose a first and a second one.",
    "no_upload": "There is no such upload; send the file itself, from where the program runs.",
    "no_run": "There is no run of that name here; it may have been deleted, runs are kept for a week.",
    "busy": "An answer is being computed; stop it first, or wait until it is done.",
    "gone": "That is no longer there; reload the page.",
    "unexpected": "Something went wrong on our side and has been logged. Please try again, or try another clip.",
}

_ARMS = {
    "latents": {
        "zero": ("Zero them", "Every value becomes 0."),
        "mean": ("Make them average", "Each becomes the mean of its kind over other clips."),
        "noise": ("Noise of the same size", "Random vectors as long as the latents they replace."),
        "other_clip": ("From another clip", "Latents of another clip take their place."),
        "other_time": ("From another time", "Features of another part of this clip take their place."),
        "shuffled": ("Shuffle them", "The same vectors in another order."),
        "removed_markers_kept": ("Remove them", "The block stays, with nothing in it."),
        "markers_removed": ("Remove the block", "As if there had been no block at all."),
        "pause_tokens": ("Pause tokens", "The same number of steps, without content."),
        "visual_only": ("Keep the picture's", "Only visual latents stay."),
        "audio_only": ("Keep the sound's", "Only audio latents stay."),
        "oracle": ("What is really there", "Features of the stated window itself."),
    },
    "clip": {
        "black_out": ("Black out the window", "No picture and no sound there."),
        "mute": ("Mute the window", "No sound there; the picture stays."),
        "shift_sound": ("Shift the sound", "The sound moves against the picture."),
    },
}
_ARM_GROUPS = {"latents": "Change the latents", "clip": "Change the clip"}

_MODES = {"latent": "with latents", "text-cot": "thinking in words", "direct": "direct answer"}
_NANO_IS = "nano is a tiny model that ships with this project. It knows AV World only: short drawn clips with 24 coloured shapes and 6 sounds."


def about(name: str) -> tuple[str, str]:
    """What the model of this name can do, and what it cannot."""
    if name == "nano":
        return _NANO_IS, "Real videos, speech and music mean nothing to it; it answers as if they were AV World."
    return (
        f"Answers come from the checkpoint {name}.",
        "It may be wrong with confidence; check what it says against the clip.",
    )


def arms() -> list[dict[str, Any]]:
    """The changes that "Does it matter?" offers, in groups."""
    return [
        {"title": _ARM_GROUPS[group], "arms": [{"arm": arm, "title": title, "text": text} for arm, (title, text) in cards.items()]}
        for group, cards in _ARMS.items()
    ]


def caption(trace: Trace, true_answer: str = "") -> str:
    """One line of facts under the question; true_answer where it is known."""
    facts = [trace.answerer, _MODES.get(trace.mode, trace.mode)]
    if trace.reason != "running":
        facts += [f"{trace.tokens} token{'s' * (trace.tokens != 1)}", f"{trace.elapsed_s:.1f} s"]
        facts += [] if trace.tokens_per_s is None else [f"{trace.tokens_per_s:.0f} tokens/s"]
    ending = f". {Finished.ENDINGS[trace.reason]}" if trace.reason in Finished.ENDINGS else ""
    return ", ".join(facts) + ending + (f". True answer: {true_answer}" if true_answer else "")
