"""Coverage-guided fuzzing of the trace reader and of what the app then draws.

Needs atheris, which the project itself does not: `pip install atheris` into an environment that has the project's own packages.

    python tests/fuzz/fuzz_trace.py build/fuzz/trace -max_total_time=600 -max_len=20000

The folder is the corpus; it begins with a small trace and its parts. The first byte chooses what the rest stands for: a whole file,
or one member of an otherwise sound trace, behind the archive's checksums. Whatever is no TraceError is printed once, with the bytes
kept in a folder `...-findings` beside the corpus, and fuzzing goes on.
"""

import io
import sys
import zipfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["latentomni", "visualizers", "zipfile", "wave"]):
    from latentomni.errors import TraceError
    from latentomni.trace import Trace
    from tests.fuzz.findings import Findings, mutated
    from visualizers.page import html_page
    from visualizers.view import view

from tests.test_trace import make_events

MEMBERS = ("trace.json", "arrays.safetensors", "sound.wav")


def main() -> None:
    corpus = Path(sys.argv[1])
    findings = Findings(corpus)
    path = findings.scratch / "fuzzed.trace.zip"
    Trace.from_events(make_events(blocks=1)).save(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    seeds = [whole, *(members[name] for name in MEMBERS)]
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(bytes([number]) + seed)

    def test(data: bytes) -> None:
        if not data:
            return
        chosen = data[0] % len(seeds)
        path.write_bytes(data[1:] if chosen == 0 else packed({**members, MEMBERS[chosen - 1]: data[1:]}))
        with findings.noted(data, TraceError):
            trace = Trace.load(path)
            view(trace)
            html_page(trace)

    atheris.Setup(sys.argv, test, custom_mutator=lambda data, most, seed: mutated(data, most, seed, head_bytes=1))
    atheris.Fuzz()


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
