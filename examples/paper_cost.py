"""What the paper's main table would take on 8 GPUs: derived from sizes and rates, measured nowhere. `python examples/paper_cost.py`.

docs/EVALUATION.md holds what this prints. N tokens of a prompt, T seconds of a clip.
"""

from dataclasses import dataclass

PER_TOKEN = 13.05e9  # FLOPs of the 7B decoder, two a parameter that a token uses
HIDDEN, LAYERS = 3584, 28  # attention of a causal prefix: 2 N^2 HIDDEN LAYERS
PER_VISUAL_TOKEN = 5e9  # FLOPs of the vision tower for one token of the language model; the audio tower adds under 2 %, left out
FRAMES, FPS, PER_SECOND_SEEN, PER_SECOND_HEARD = 256, 2, 128, 25  # tokens a second; a longer clip has its 256 frames spread
STEPS, ROWS = 750, 96  # of a training run: two epochs of 35,000 rows
STATE_PASSES = 4  # a forward, a backward of twice that, and the forward again that checkpointing asks for
PHASES = {"anchors": (450, 1.0), "jacobi": (200, 1.1), "rollout": (100, 1.6)}  # steps of the recipe; time beside a plain step
TRAINED, ASKED = 3, 4  # vanilla SFT, explicit text CoT, LatentOmni; and the base, which is asked only
USED_TRAINING, USED_PROMPT = 0.4, 0.5  # of the peak
DECODED, STEPS_PER_S = 256, 30  # steps of an answer at most, and what an eager loop does on any of these GPUs
READ_S = 0.07  # per second of a 720p clip, on two cores
GPUS = 8


@dataclass(frozen=True)
class Gpu:
    name: str
    peak: float  # dense bf16 FLOPs a second
    dollars: float  # an hour; assumed, look up your own


@dataclass(frozen=True)
class Benchmark:
    name: str
    questions: int
    clip_s: float  # mean


CARDS = (Gpu("H100", 989e12, 2.5), Gpu("A100", 312e12, 1.5))
BENCHMARKS = (
    Benchmark("Daily-Omni", 1197, (647 * 30 + 550 * 60) / 1197),
    Benchmark("WorldSense", 3172, 141),
    Benchmark("OmniVideoBench", 1000, 386),
    Benchmark("LVOmniBench", 1014, 2069),
)


def tokens(clip_s: float) -> tuple[float, float]:
    """Visual ones, and all."""
    visual = min(clip_s, FRAMES / FPS) * PER_SECOND_SEEN
    return visual, visual + clip_s * PER_SECOND_HEARD


def decoder_flops(n: float) -> float:
    return PER_TOKEN * n + 2 * n**2 * HIDDEN * LAYERS


def run_flops(clip_s: float, *, feeds_back: bool) -> float:
    """A training run on clips of this length, whose frozen towers read every clip once a step."""
    visual, n = tokens(clip_s)
    slower = sum(steps * factor for steps, factor in PHASES.values()) / STEPS if feeds_back else 1.0
    return STEPS * ROWS * (STATE_PASSES * slower * decoder_flops(n) + PER_VISUAL_TOKEN * visual)


def question_s(clip_s: float, gpu: Gpu) -> tuple[float, float, float]:
    """Seconds to read the clip, to read the prompt, and to answer."""
    visual, n = tokens(clip_s)
    prompt_s = (decoder_flops(n) + PER_VISUAL_TOKEN * visual) / (USED_PROMPT * gpu.peak)
    return READ_S * clip_s, prompt_s, DECODED / STEPS_PER_S


def training_rows() -> list[str]:
    lines = ["| clips of | tokens | FLOPs of the run | " + " | ".join(f"hours on {GPUS} {g.name}" for g in CARDS) + " |", "|---" * (3 + len(CARDS)) + "|"]
    for clip_s in (30, 60, 120):
        flops = run_flops(clip_s, feeds_back=True)
        hours = [flops / (USED_TRAINING * g.peak * GPUS * 3600) for g in CARDS]
        lines.append(f"| {clip_s} s | {tokens(clip_s)[1]:,.0f} | {flops:.2g} | " + " | ".join(f"{h:.1f}" for h in hours) + " |")
    return lines


def asking_rows(gpu: Gpu) -> list[str]:
    lines = [f"| {gpu.name} | questions | mean clip | tokens | read + prompt + answer, s | hours on {GPUS}, one model |", "|---|---|---|---|---|---|"]
    for b in BENCHMARKS:
        parts = question_s(b.clip_s, gpu)
        hours = b.questions * sum(parts) / GPUS / 3600
        seconds = " + ".join(f"{s:.1f}" for s in parts)
        lines.append(f"| {b.name} | {b.questions:,} | {b.clip_s:.0f} s | {tokens(b.clip_s)[1]:,.0f} | {seconds} | {hours:.1f} |")
    return lines


def table_rows() -> list[str]:
    lines = [f"| on {GPUS} | training, h | asking, h | GPU hours | at an assumed price |", "|---|---|---|---|---|"]
    for gpu in CARDS:
        runs = [run_flops(60, feeds_back=i == 0) for i in range(TRAINED)]
        training = sum(runs) / (USED_TRAINING * gpu.peak * GPUS * 3600)
        asking = ASKED * sum(b.questions * sum(question_s(b.clip_s, gpu)) for b in BENCHMARKS) / GPUS / 3600
        hours = GPUS * (training + asking)
        lines.append(f"| {gpu.name} | {training:.0f} | {asking:.0f} | {hours:.0f} | {hours * gpu.dollars:,.0f} dollars at {gpu.dollars} an hour |")
    return lines


if __name__ == "__main__":
    print("\n\n".join("\n".join(rows) for rows in (training_rows(), asking_rows(CARDS[0]), table_rows())))
