"""Reading in a process of its own: the same clip, whatever becomes of the process a sentence, and nothing else on the disk is opened."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from latentomni.config import MediaLimits, ReadingSpec
from latentomni.errors import MediaError, RequestError
from latentomni.isolation import probe_isolated, read_isolated
from latentomni.media import probe, read_clip
from tests.media_files import drawn, write

FILES = {
    "a.mp4": ("libx264", "aac"),
    "b.webm": ("libvpx", "libopus"),
    "mute.mkv": ("libx264", None),
    "sound.wav": (None, "pcm_s16le"),
}


def children() -> list[int]:
    """Readers that any thread of this process has started; other tests may have left other processes."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread or a process that has just ended
            found += [int(pid) for pid in task.read_text().split() if b"latentomni.isolation" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "clip.mp4", "libx264", "aac")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reading", [ReadingSpec(), ReadingSpec(fps=7, start_s=0.5, end_s=2.0)], ids=["plain", "cut"])
def test_the_clip_is_the_same_bit_for_bit(tmp_path, name, reading):
    path = write(tmp_path / name, *FILES[name])
    near, far = read_clip(path, reading=reading), read_isolated(path, reading=reading)
    for field, value in vars(near).items():
        other = getattr(far, field)
        assert type(other) is type(value), field
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype and np.array_equal(other, value), field
        else:
            assert other == value, field
    assert probe_isolated(path) == probe(path)


def test_refusals_are_those_of_the_reader(tmp_path, path):
    (tmp_path / "text.mp4").write_text("This is not a film.\n" * 50)
    for file, settings in [
        (tmp_path / "none.mp4", {}),
        (tmp_path, {}),
        (tmp_path / "text.mp4", {}),
        (path, {"limits": MediaLimits(max_duration_s=2)}),
        (path, {"limits": MediaLimits(max_streams=1)}),
        (path, {"reading": ReadingSpec(start_s=9.0)}),
        (path, {"fps": 0}),
    ]:
        said = []
        for read in (read_clip, read_isolated):
            with pytest.raises((MediaError, RequestError)) as refusal:
                read(file, **settings)
            said.append((type(refusal.value), str(refusal.value)))
        assert said[1] == (said[0][0], said[0][1].replace(str(file), file.name)), "the folder is not told"


def test_a_reader_that_takes_too_long_is_ended(path):
    with pytest.raises(MediaError, match=r"clip\.mp4 takes more than 0\.001 s to read"):
        read_isolated(path, limits=MediaLimits(max_read_s=0.001))
    assert not children()


@pytest.mark.skipif(os.name != "posix", reason="this system sets no limits")
def test_a_reader_that_takes_too_much_memory_is_refused(tmp_path):
    pictures = [drawn(i, 448, 448) for i in range(2)]
    path = write(tmp_path / "clip.mkv", "libx264", pictures=pictures, times_ms=[0, 25_000])
    limits = MediaLimits(max_memory_bytes=440 * 2**20)
    with pytest.raises(MediaError, match=r"^clip\.mkv takes more memory to read than there is; cut it shorter or scale it down\.$"):
        read_isolated(path, reading=ReadingSpec(fps=30), limits=limits)  # the frames alone take 430 MiB
    assert len(read_isolated(path, limits=limits).frames) == 51


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list processes")
@pytest.mark.parametrize("sign", [signal.SIGSEGV, signal.SIGKILL])
def test_a_reader_that_crashes_is_a_sentence(path, sign, caplog):
    def crash() -> bool:
        for pid in children():
            os.kill(pid, sign)
        return False

    with pytest.raises(
        MediaError, match=r"^clip\.mp4 cannot be read, because reading it broke the decoder; save it as mp4 first\.$"
    ):
        read_isolated(path, cancelled=crash)
    assert [f"status -{sign:d}" in record.getMessage() for record in caplog.records] == [True]
    assert not children()


def test_stopping_ends_the_process(path):
    running = []

    def stop() -> bool:
        running.extend(children())
        return True

    with pytest.raises(MediaError, match="was stopped"):
        read_isolated(path, cancelled=stop)
    assert not children() and (running or not Path("/proc/self/task").exists())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not tell")
def test_the_process_knows_no_secrets(path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a secret")
    seen = {}

    def look() -> bool:
        for pid in children():
            seen["environment"] = Path(f"/proc/{pid}/environ").read_bytes() or seen.get("environment", b"")
        return False

    read_isolated(path, reading=ReadingSpec(fps=30, max_pixels=600_000), cancelled=look)
    assert seen["environment"] and b"secret" not in seen["environment"]


def test_the_process_imports_neither_torch_nor_the_app():
    heavy = {"torch", "transformers", "gradio", "PIL", "app", "visualizers", "latentomni.runtime", "safetensors"}
    code = f"import sys, latentomni.isolation; sys.exit(sorted({heavy!r} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{secret}\n#EXT-X-ENDLIST\n",
    "hls with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:3,\n{url}\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile {secret}\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT3S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>\n",
    "asx": '<asx version="3.0"><entry><ref href="{url}"/></entry></asx>\n',
    "vobsub": "# VobSub index file, v7\nsize: 720x576\nid: en, index: 0\n",
    "smil": '<smil><body><video src="{secret}"/></body></smil>\n',
}


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".sdp", ".mpd", ".mp3", ".mkv"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_other_file_and_no_address(tmp_path, kind, suffix):
    """In this process: the whitelists refuse it, not the isolation."""
    secret = write(tmp_path / "secret.mp4", "libx264", pictures=[drawn(5)] * 3)
    os.utime(secret, (1, 1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        file = tmp_path / f"upload{suffix}"
        file.write_text(PLAYLISTS[kind].format(secret=secret, url=f"http://127.0.0.1:{port}/x.mp4", port=port))
        for read in (probe, read_clip):
            with pytest.raises(MediaError, match=r"is not a video or sound file|could be decoded|holds neither"):
                read(file)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert secret.stat().st_atime == 1, "the other file was opened"


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/x.mp4",
        "concat:/etc/passwd|/etc/hosts",
        "data:video/mp4;base64,AAAA",
        "subfile,,start,0,end,0,,:/etc/passwd",
        "pipe:0",
    ],
)
def test_an_address_is_not_a_file(address):
    for read in (probe, read_clip, probe_isolated):
        with pytest.raises(MediaError, match="There is no file"):
            read(address)


def test_many_at_once_do_not_disturb_each_other(path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_isolated(path).frames.sum())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
