"""`inspect`: what a trace holds, as text, as a page, as tables. Needs numpy and safetensors, no torch and no plotly."""

import argparse
import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from latentomni.commands.arguments import add_command, new_file, new_folder
from latentomni.commands.summary import block_line, summarise
from latentomni.trace import Trace

__all__ = ["add_to"]

_LATENTS = ("block", "slot", "modality", "instant", "row", "column", "time_s", "p", "p_corrected", "elapsed_s")
_EVIDENCE = ("block", "slot", "rank", "start_s", "end_s", "top", "left", "bottom", "right", "score")
_BLOCKS = ("block", "start_s", "end_s", "source", "text_offset", "opened_s", "closed_s")
_TEXT = ("elapsed_s", "text", "token_ids")


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "inspect",
        _run,
        "Tell what a trace holds; needs no torch.",
        "inspect run.zip",
        "inspect run.zip --html run.html --csv tables",
    )
    parser.add_argument("trace", metavar="TRACE", help="a file that `ask --trace` or the app wrote")
    parser.add_argument(
        "--html", type=new_file, metavar="FILE", help="write a page that needs no other file and no network"
    )
    parser.add_argument(
        "--csv", type=new_folder, metavar="DIR", help="write text, blocks, latents and evidence as tables"
    )


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    trace = Trace.load(args.trace)
    summary = summarise(trace)
    for line in _lines(trace, summary):
        say(line)
    if args.html:
        from visualizers.page import html_page

        args.html.write_text(html_page(trace), encoding="utf-8")
        say(f"The page is {args.html}.")
    if args.csv:
        _write_tables(trace, args.csv)
        say(f"The tables are in {args.csv}.")
    return {**summary, "device": "cpu"}


def _lines(trace: Trace, summary: dict[str, Any]) -> Iterable[str]:
    clip = trace.clip
    sound = "no sound" if clip.sound is None else f"sound at {trace.sound_hz} Hz"
    yield f"{summary['schema']}: {trace.model} ({trace.weights} weights), {trace.mode} mode, {trace.flow} flow"
    yield f"clip      {clip.name}, {clip.duration_s:.1f} s, {len(clip.thumbnails)} pictures, {sound}"
    yield f"evidence  {len(trace.visual.features)} visual and {len(trace.audio.features)} audio moments"
    yield f"question  {trace.question}"
    yield f"answer    {trace.answer}"
    for block in trace.blocks:
        yield f"block     {block_line(block)}"
    if trace.truth:
        yield f"truth     {trace.truth}"
    first = "" if trace.ttft_s is None else f", the first after {trace.ttft_s:.2f} s"
    yield f"tokens    {trace.tokens} in {trace.elapsed_s:.2f} s{first}; ended by {trace.reason}"
    for notice in summary["notices"]:
        yield f"notice    {notice}"


def _write_tables(trace: Trace, folder: Path) -> None:
    """text.csv, blocks.csv, latents.csv and evidence.csv; times in seconds, cells as shares of the frame."""
    folder.mkdir(parents=True, exist_ok=True)
    slots = [(b, k, z) for b, block in enumerate(trace.blocks) for k, z in enumerate(block.latents)]
    _write(folder / "text.csv", _TEXT, ((d.elapsed_s, d.text, " ".join(map(str, d.token_ids))) for d in trace.deltas))
    _write(
        folder / "blocks.csv",
        _BLOCKS,
        (
            (b, x.window.start_s, x.window.end_s, x.window_source, x.text_offset, x.opened_s, x.closed_s)
            for b, x in enumerate(trace.blocks)
        ),
    )
    _write(
        folder / "latents.csv",
        _LATENTS,
        (
            (b, k, z.modality, z.instant, *(z.cell or ("", "")), z.time_s, z.p, z.p_corrected, z.elapsed_s)
            for b, k, z in slots
        ),
    )
    _write(
        folder / "evidence.csv",
        _EVIDENCE,
        ((b, k, m.rank, m.start_s, m.end_s, *m.cell, m.score) for b, k, z in slots for m in z.matches),
    )


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
