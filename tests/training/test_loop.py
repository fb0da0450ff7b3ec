"""The loop: what was killed and resumed is what ran through, two processes are one, and a state holds what is trained."""

import copy
import json
import os
import socket
from importlib.util import find_spec

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from latentomni.errors import RequestError
from latentomni.training.batches import make_batch
from latentomni.training.examples import build_example
from latentomni.training.feedback import Phase
from latentomni.training.loop import FitSpec, Stage, fit, learning_rate, make_accelerator
from latentomni.training.losses import LossSpec, Objective
from tests.training.conftest import ALOUD, DIRECT, ONE, TWO

LOSSES = LossSpec(alignment=1.0, alignment_reduction="mean", sync=0.5)
STAGES = (
    Stage("anchors", 3, 1e-3, Phase(noise=0.1)),
    Stage("jacobi", 2, 1e-3, Phase("jacobi", 2, share=0.5)),
    Stage("rollout", 2, 1e-3, Phase("rollout")),
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def objective(tiny64):
    """Makes the same objective over the language model of a fresh copy, each time it is called."""

    def make():
        thinker = copy.deepcopy(tiny64)
        thinker.model.requires_grad_(False)
        thinker.text_model.requires_grad_(True)
        return Objective(thinker, LOSSES)

    return make


@pytest.fixture(scope="module")
def batches(tiny64, features):
    """Micro-batches of unlike size, with several blocks, with one, and without any."""
    rows = [[(0, (TWO, DIRECT)), (1, (ONE,))], [(2, (ALOUD,))], [(0, (ONE, ALOUD))], [(2, (TWO,)), (1, (DIRECT,))]]
    return [make_batch(tiny64, [build_example(tiny64, features[i], turns) for i, turns in row]) for row in rows]


def trained(module):
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def run(objective, out, draw, **options):
    """The trained parameters after a run."""
    out.mkdir(exist_ok=True)
    spec = FitSpec(save_every=2, log_every=1, **options.pop("spec", {}))
    losses = fit(objective, options.pop("stages", STAGES), draw, out, spec, **options)
    return trained(objective), losses


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.fixture(scope="module")
def through(objective, batches, tmp_path_factory):
    return run(objective(), tmp_path_factory.mktemp("through") / "run", lambda stage, step: batches[step % 2 :][:2])


@pytest.mark.parametrize("killed_at", [(0, 0), (0, 2), (1, 1), (2, 0)], ids=str)
def test_killed_and_resumed_is_uninterrupted(objective, batches, through, tmp_path, killed_at):
    def draw(stage, step):
        if (stage, step) == killed_at and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise Killed
        return batches[step % 2 :][:2]

    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(objective(), out, draw)
    if killed_at == (1, 1):  # as it is when the kill falls between the two moves of a save
        (out / "state").rename(out / "state.old")
        (out / "state.partial").mkdir()
    resumed, losses = run(objective(), out, draw, resume=True)
    assert_same(resumed, through[0])
    assert losses == through[1]
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [(s.name, k + 1) for s in STAGES for k in range(s.steps)]


def test_a_finished_run_is_not_trained_further(objective, batches, through, tmp_path):
    def draw(stage, step):
        raise Killed

    first = tmp_path / "run"
    run(objective(), first, lambda stage, step: batches[:1], stages=STAGES[:1])
    before = load_file(first / "state" / "trained.safetensors")
    again, losses = run(objective(), first, draw, stages=STAGES[:1], resume=True)
    assert_same(again, before)
    assert losses == {}
    with pytest.raises(RequestError, match="holds a run with stages"):
        run(objective(), first, draw, stages=STAGES[1:], resume=True)


def test_a_state_holds_what_is_trained_and_goes_with_nothing_else(objective, batches, tmp_path):
    stages, killed_at = (STAGES[0], STAGES[2]), [(1, 0)]

    def draw(stage, step):
        if (stage, step) in killed_at:
            raise Killed
        return batches[:1]

    out, module = tmp_path / "run", objective()
    with pytest.raises(Killed):
        run(module, out, draw, stages=stages)
    killed_at.clear()
    files = {file.name for file in (out / "state").iterdir()}
    assert files == {"trained.safetensors", "optimizer.bin", "random_states_0.pkl", "place.json"}
    assert_same(load_file(out / "state" / "trained.safetensors"), trained(module))
    other = objective()
    other.thinker.model.lm_head.requires_grad_(True)
    with pytest.raises(RequestError, match="trains other parameters"):
        run(other, out, draw, stages=stages, resume=True)


def _process(rank, port, module, batches, out):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    torch.set_num_threads(1)
    after, losses = run(module, out, lambda stage, step: batches, stages=tuple(Stage(s.name, 1, s.lr, s.phase) for s in STAGES))
    assert Accelerator().num_processes == 2
    if rank == 0:
        save_file(after, out / "after.safetensors")
        (out / "losses.json").write_text(json.dumps(losses))


def test_two_processes_train_what_one_trains_on_both_their_batches(objective, batches, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (port, objective(), batches, tmp_path / "two"), 2)
    stages = tuple(Stage(s.name, 1, s.lr, s.phase) for s in STAGES)
    one, losses = run(objective(), tmp_path / "one", lambda stage, step: batches, stages=stages)
    two = load_file(tmp_path / "two" / "after.safetensors")
    start = trained(objective())
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-9, msg=name)
    assert max((one[name] - start[name]).abs().max() for name in one) > 1e-3
    told = json.loads((tmp_path / "two" / "losses.json").read_text())
    assert "latent_cosine" in told
    assert told == pytest.approx(losses, rel=1e-6)


def test_a_step_in_parts_is_the_step_in_one(objective, tiny64, features, tmp_path):
    examples = [build_example(tiny64, features[i], turns) for i, turns in ((0, (TWO, ALOUD)), (1, (ONE,)), (2, (DIRECT,)))]
    stages = (Stage("rollout", 1, 1e-4, Phase("rollout")),)
    whole, told = run(objective(), tmp_path / "a", lambda stage, step: [make_batch(tiny64, examples)], stages=stages)
    parts, again = run(objective(), tmp_path / "b", lambda stage, step: [make_batch(tiny64, [e]) for e in examples], stages=stages)
    assert {name: again[name] for name in told if name != "latent_cosine"} == pytest.approx(
        {name: value for name, value in told.items() if name != "latent_cosine"}, rel=1e-5
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5, msg=name)


def test_the_learning_rate_begins_once_or_in_every_stage_and_moments_where_a_stage_says_so(objective, batches, tmp_path):
    assert [learning_rate(step, 100, 2.0, 0.1) for step in (0, 4, 9)] == [0.2, 1.0, pytest.approx(2.0, rel=0.03)]
    assert learning_rate(99, 100, 2.0, 0.1) == pytest.approx(0.2, rel=0.01)
    rates, taken = {}, {}

    def note(optimizer, key):
        rates.setdefault(key, []).append(optimizer.param_groups[0]["lr"])
        taken.setdefault(key, []).append(max((int(state["step"]) for state in optimizer.state.values()), default=0))

    for restarts in (True, False):
        hook = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs, key=restarts: note(optimizer, key))
        stages, spec = (Stage("a", 2, 1.0), Stage("b", 2, 1.0), Stage("c", 2, 1.0, forgets=True)), {"restarts": restarts, "warmup": 0.0}
        run(objective(), tmp_path / str(restarts), lambda stage, step: batches[1:2], stages=stages, spec=spec)
        hook.remove()
    assert rates[True] == [learning_rate(k, 2, 1.0, 0.0) for k in (0, 1, 0, 1, 0, 1)]
    assert rates[False] == [learning_rate(k, 6, 1.0, 0.0) for k in range(6)]
    assert taken[True] == taken[False] == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("wrong", [{"warmup": 1.5}, {"save_every": 0}, {"log_with": "paper"}], ids=str)
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        FitSpec(**wrong)


# trackio is no requirement of the project; where a developer has it, there is nothing to refuse
@pytest.mark.skipif(find_spec("trackio") is not None, reason="it is installed here")
def test_a_logger_that_is_not_installed_is_named_with_its_remedy(tmp_path):
    with pytest.raises(RequestError, match="log_with is trackio, which is not installed; `pip install trackio`"):
        make_accelerator(FitSpec(log_with="trackio"), tmp_path)
