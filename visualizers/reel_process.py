"""The reel of a stranger's clip is cut in a process of its own: ffmpeg may hang on such a file, or take all memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from latentomni.errors import MediaError, RequestError

__all__ = ["serve", "write_reel_apart"]

_LIMIT_S = 180.0
_MOST = {"RLIMIT_AS": 6 << 30, "RLIMIT_FSIZE": 1 << 30, "RLIMIT_CORE": 0}  # bytes, of each process
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "IMAGEIO_FFMPEG_EXE")  # no keys
_ERRORS = {"MediaError": MediaError, "RequestError": RequestError}


def write_reel_apart(trace: Path, clip: Path, out: Path, limit_s: float = _LIMIT_S) -> None:
    """`write_reel` of a trace's file, bounded in time and memory; a reel that is not finished is not there. Raises RequestError and MediaError
    as it does, and MediaError where it takes too long or breaks the process."""
    code = f"import sys; sys.path[:] = {[os.path.abspath(p) for p in sys.path]!r}; from visualizers.reel_process import serve; serve()"
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    with tempfile.TemporaryDirectory(dir=out.parent, ignore_cleanup_errors=True) as folder:
        film = Path(folder, "reel.mp4").absolute()
        command = [sys.executable, "-I", "-S", "-c", code, *(str(path.absolute()) for path in (trace, clip, film))]
        with subprocess.Popen(
            command, cwd=folder, env={**kept, "TMPDIR": folder}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as child:  # fmt: skip
            try:
                answer = json.loads(child.communicate(timeout=limit_s)[0])
            except subprocess.TimeoutExpired:
                raise MediaError(f"{clip.name} takes more than {limit_s:g} s to cut; cut it shorter or scale it down.") from None
            except ValueError:  # it said nothing
                raise MediaError(f"{clip.name} could not be cut, because reading it broke ffmpeg; save it as mp4 first and ask again.") from None
            finally:
                with suppress(ProcessLookupError, AttributeError):  # ended, with its ffmpeg; no groups on Windows
                    os.killpg(child.pid, signal.SIGKILL)
                child.kill()
        if "error" in answer:
            raise _ERRORS[answer["error"]](answer["text"])
        film.replace(out)


def serve() -> None:
    """The process: writes the reel of a trace and a clip, and says on standard output what came of it."""
    from latentomni.trace import Trace
    from visualizers.reel import write_reel

    trace, clip, film = map(Path, sys.argv[1:])
    _confine()
    try:
        write_reel(Trace.load(trace), clip, film)
        answer = {}
    except (MediaError, RequestError) as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(answer))


def _confine() -> None:
    """Bound this process and its ffmpeg where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, most in _MOST.items():
        with suppress(ValueError, OSError):  # a limit that the system has but does not let be set
            resource.setrlimit(getattr(resource, name), (most, most))
