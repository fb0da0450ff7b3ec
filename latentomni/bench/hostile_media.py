"""Clips that are damaged or hostile, given to the isolated reader: every container, headers that lie, lists of other files, odd names."""

import os
import struct
import subprocess
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from latentomni.avworld import sample_world
from latentomni.avworld.picture import render_frames
from latentomni.avworld.sound import render_sound
from latentomni.bench.damage import ODD_TEXTS, Attacked, damaged
from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.config import MediaLimits, ReadingSpec
from latentomni.isolation import probe_isolated, read_isolated

__all__ = ["media_feeder", "write_sound"]

_LIMITS = MediaLimits(max_read_s=20.0)
_SECONDS, _FPS, _SIDE_PX = 1.5, 10, 96
_SOUND = "seed.pcm.wav"
_SEEDS = {
    "seed.mp4": "-c:v libx264 -bf 2 -c:a aac",
    "fragments.mp4": "-c:v libx264 -c:a aac -movflags frag_keyframe+empty_moov",
    "seed.mov": "-c:v mjpeg -c:a pcm_s16le",
    "seed.webm": "-c:v libvpx -c:a libopus",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -c:a libvorbis",
    "seed.mkv": "-c:v ffv1 -c:a flac",
    "hevc.mkv": "-c:v libx265 -x265-params log-level=none:pools=1 -c:a ac3",
    "seed.avi": "-c:v mpeg4 -c:a pcm_s16le",
    "seed.gif": "-an",
    "seed.wav": "-vn -c:a pcm_s24le",
    "seed.mp3": "-vn -c:a libmp3lame",
    "seed.flac": "-vn -c:a flac",
    "seed.ogg": "-vn -c:a libopus",
    "seed.m4a": "-vn -c:a alac",
    "seed.3gp": "-c:v h263 -s 128x96 -c:a aac -f 3gp",
}
_LISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{secret}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {secret}\n",
    "list.mkv": "ffconcat version 1.0\nfile {secret}\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "list.mpd": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period><AdaptationSet><Representation>"
    "<BaseURL>{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "list.asx": "<asx><entry><ref href='file://{secret}'/></entry></asx>",
    "list.ffmeta": ";FFMETADATA1\ntitle=x\n",
    "list.srt": "1\n00:00:00,000 --> 99:59:59,999\nx\n",
    "list.svg": "<svg xmlns='http://www.w3.org/2000/svg'><image href='file://{secret}'/></svg>",
}


def media_feeder(kind: str, attacked: Attacked) -> Callable[[np.random.Generator, int], None]:
    """Feeds a file: its header is read, as the app does when it arrives, then all of it, as when a question is asked."""
    write_seeds(attacked.seed)
    seeds = {name: Path(name).read_bytes() for name in _SEEDS}
    if kind == "media_damaged":
        return lambda rng, number: _feed(_damaged(rng, number, seeds), rng)
    made = _made(seeds)
    return lambda rng, number: _feed(_written(rng, number, made, seeds), rng)


def _feed(path: Path, rng: np.random.Generator) -> None:
    try:
        if rng.random() < 0.2:
            probe_isolated(path, _LIMITS)
        fps = float(rng.choice([2.0, 2.0, 0.05, 30.0]))
        read_isolated(path, limits=_LIMITS, reading=ReadingSpec(fps=fps))
    finally:
        if path.is_file():
            path.unlink()


def write_seeds(seed: int) -> None:
    """A short AV World clip in every container, in the working folder."""
    import imageio_ffmpeg

    world = sample_world(seed, "train")
    frames = render_frames(world, np.arange(round(_SECONDS * _FPS)) / _FPS, _SIDE_PX)
    write_sound(Path(_SOUND), render_sound(world)[: round(_SECONDS * SAMPLE_RATE_HZ)])
    source = f"-v error -y -f rawvideo -pix_fmt rgb24 -s {_SIDE_PX}x{_SIDE_PX} -r {_FPS} -i pipe:0 -i {_SOUND} -threads 1 -bitexact"
    for name, settings in _SEEDS.items():
        picture = (
            ""
            if "-vn" in settings or name.endswith("gif")
            else "-pix_fmt yuvj420p"
            if "mjpeg" in settings
            else "-pix_fmt yuv420p"
        )
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *source.split(), *picture.split(), *settings.split(), name]
        subprocess.run(command, input=frames.tobytes(), check=True, capture_output=True)


def write_sound(path: Path, samples: np.ndarray) -> None:
    """16-bit mono at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())


def _damaged(rng: np.random.Generator, number: int, seeds: dict[str, bytes]) -> Path:
    names = list(seeds)
    name = names[number % len(names)]
    path = Path(f"upload{Path(name).suffix}")
    path.write_bytes(damaged(rng, seeds[name], seeds[names[int(rng.integers(len(names)))]]))
    return path


def _written(rng: np.random.Generator, number: int, made: list[tuple[str, bytes]], seeds: dict[str, bytes]) -> Path:
    """One of the files made by hand, random bytes, or a sound clip with an odd name."""
    turn, place = divmod(number, 3)[::-1]
    if turn < 2:
        name, data = made[(2 * place + turn) % len(made)]
    else:
        odd = ODD_TEXTS[place % len(ODD_TEXTS)].replace("/", "_").replace("\x00", "_")
        name = f"{odd.encode('utf-8', 'surrogatepass').decode('utf-8', 'replace')[:60]}.mp4"
        data = seeds["seed.mp4"] if rng.random() < 0.5 else rng.bytes(int(2 ** rng.uniform(0, 16)))
    path = Path(name)
    if data == b"folder":
        path.mkdir(exist_ok=True)
    elif data == b"pipe":
        path.exists() or os.mkfifo(path)
    elif data != b"nothing":
        path.write_bytes(data)
    return path


def _made(seeds: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Names and contents of the files made by hand; those of a word stand for what is no plain file."""
    secret = Path("seed.mp4").absolute()
    files = [(name, text.format(secret=secret).encode()) for name, text in _LISTS.items()]
    files += [
        ("folder.mp4", b"folder"),
        ("pipe.mp4", b"pipe"),
        ("gone.mp4", b"nothing"),
        ("empty.mp4", b""),
        ("one.mp4", b"\x00"),
    ]
    files += [
        (f"x.{suffix}", head + b"\x00" * 4096)
        for suffix, head in (
            ("zip", b"PK\x03\x04"),
            ("mp4", b"%PDF-1.7"),
            ("mkv", b"\x7fELF"),
            ("mp3", b"\x89PNG\r\n\x1a\n"),
            ("gif", b"GIF89a"),
        )
    ]
    files += [(f"bomb.{suffix}", zlib.compress(bytes(50_000_000))) for suffix in ("mp4", "webm")]
    files += (
        _lying_mp4(seeds["seed.mp4"])
        + _lying_gif()
        + _lying_wav()
        + _lying_matroska(seeds["seed.mkv"])
        + _lying_avi(seeds["seed.avi"])
    )
    files += [
        ("tag.mp3", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + seeds["seed.mp3"]),
        ("many.mp3", seeds["seed.mp3"] * 60),
        ("many.ogg", seeds["seed.ogg"] * 40),
        ("many.mp4", seeds["seed.mp4"] * 40),
    ]
    files += [
        ("rate.flac", seeds["seed.flac"][:18] + b"\x00\x00\x00" + seeds["seed.flac"][21:]),
        ("polyglot.mp3", _LISTS["list.m3u8"].format(secret=secret).encode() + seeds["seed.mp3"] * 4),
    ]
    return files


def _lying_mp4(good: bytes) -> list[tuple[str, bytes]]:
    """Sizes, lengths and counts of boxes at their extremes."""
    fields = {
        b"avc1": (28, 4),
        b"mvhd": (16, 8),
        b"mdhd": (16, 8),
        b"tkhd": (24, 8),
        b"stts": (8, 12),
        b"stsz": (8, 8),
        b"stsc": (8, 12),
        b"stco": (8, 8),
        b"elst": (8, 16),
        b"ctts": (8, 8),
        b"mp4a": (20, 12),
        b"avcC": (4, 12),
    }
    files = []
    for box, (offset, width) in fields.items():
        at = good.find(box)
        for value in (b"\x00", b"\xff", b"\x7f"):
            if at > 0:
                start = at + offset
                files.append((f"{box.decode()}.mp4", good[:start] + value * width + good[start + width :]))
                files.append((f"{box.decode()}-size.mp4", good[: at - 4] + value * 4 + good[at:]))
    deep = b""
    for _ in range(3000):
        deep = struct.pack(">I4s", len(deep) + 8, b"moov") + deep
    return [
        *files,
        ("deep.mp4", good[:32] + deep),
        ("boxes.mp4", good[:32] + struct.pack(">I4s", 8, b"free") * 200_000),
    ]


def _lying_gif() -> list[tuple[str, bytes]]:
    """A screen of 65535 pixels a side in a few bytes; thousands of pictures; pictures that are shown for hours."""
    pixel = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"

    def gif(width_px: int, height_px: int, delay: int, pictures: int) -> bytes:
        control = b"\x21\xf9\x04\x04" + struct.pack("<H", delay) + b"\x00\x00"
        return (
            b"GIF89a"
            + struct.pack("<HH", width_px, height_px)
            + b"\x80\x00\x00"
            + b"\x00\x00\x00\xff\xff\xff"
            + (control + pixel) * pictures
            + b"\x3b"
        )

    shapes = (
        (65535, 65535, 10, 2),
        (8192, 8192, 10, 50),
        (1, 1, 65535, 3),
        (1, 1, 0, 20_000),
        (1, 60_000, 10, 30),
        (60_000, 1, 10, 30),
        (0, 0, 10, 2),
        (1, 1, 1, 60_000),
    )
    return [(f"screen-{number}.gif", gif(*shape)) for number, shape in enumerate(shapes)]


def _lying_wav() -> list[tuple[str, bytes]]:
    files = []
    for channels, rate_hz, bits in (
        (0, 16_000, 16),
        (65535, 16_000, 16),
        (1, 0, 16),
        (1, 1, 16),
        (1, 2**32 - 1, 16),
        (1, 16_000, 0),
        (1, 16_000, 7),
        (1, 16_000, 65535),
        (64, 768_000, 32),
        (2, 8000, 8),
    ):
        head = struct.pack(
            "<HHIIHH",
            1,
            channels,
            rate_hz,
            rate_hz * channels * max(bits, 8) // 8 & 0xFFFFFFFF,
            channels * max(bits, 8) // 8 & 0xFFFF,
            bits,
        )
        body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", 0xFFFFFFF0) + bytes(64_000)
        files.append((f"form-{channels}-{rate_hz}-{bits}.wav", b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + body))
    return files


def _lying_matroska(good: bytes) -> list[tuple[str, bytes]]:
    """Element ids followed by extreme values: length of the whole, ticks, size of the picture, sizes of elements."""
    files = []
    for name, mark, width in (
        ("duration", b"\x44\x89", 8),
        ("scale", b"\x2a\xd7\xb1", 3),
        ("width", b"\xb0", 2),
        ("height", b"\xba", 2),
        ("rate", b"\xb5", 8),
    ):
        at = good.find(mark)
        for value in (b"\x00", b"\xff", b"\x7f"):
            if at > 0:
                start = at + len(mark) + 1
                files.append((f"{name}.mkv", good[:start] + value * width + good[start + width :]))
    endless = good[:40] + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" + b"\xec\x40\x00" * 100_000
    return [*files, ("endless.mkv", endless)]


def _lying_avi(good: bytes) -> list[tuple[str, bytes]]:
    at, files = good.find(b"avih") + 8, []
    for value in (b"\x00", b"\xff", b"\x7f"):
        files += [
            ("pace.avi", good[:at] + value * 4 + good[at + 4 :]),
            ("frames.avi", good[:at] + value * 40 + good[at + 40 :]),
        ]
        stream = good.find(b"strh") + 28
        files.append(("stream.avi", good[:stream] + value * 16 + good[stream + 16 :]))
        form = good.find(b"strf") + 12
        files.append(("form.avi", good[:form] + value * 8 + good[form + 8 :]))
    return files
