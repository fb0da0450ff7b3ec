"""The model as lmms-eval asks it: a question about one video or sound file at a time, answered by our own runtime."""

import logging
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from latentomni.config import Mode, SamplingSpec
from latentomni.errors import LatentOmniError, RequestError, require
from latentomni.evaluation.harness import VIDEO_LIMITS
from latentomni.evaluation.lmms.documents import FAILED, asked
from latentomni.evaluation.processes import Processes
from latentomni.runtime import Runtime

__all__ = ["LatentOmni"]

_TOLD = logging.getLogger(__name__)
_SAMPLING = ("temperature", "top_p", "seed", "max_new_tokens", "max_blocks")


class LatentOmni(lmms):
    """`--model latentomni --model_args model=nano,mode=latent,quantization=nf4`.

    model: "nano", a checkpoint's folder or a hub id. mode: latent, text-cot or direct; the model's own unless given. batch_size: questions are
    answered one at a time whatever it is, with the clip's keys and values kept. Of a task's generation settings those count that
    `SamplingSpec` has; an answer ends where the model ends it.
    """

    is_simple = False

    def __init__(self, model: str = "nano", mode: str | None = None, quantization: str | None = None, batch_size: int | str = 1,
                 max_batch_size: int | None = None, device: str | None = None) -> None:  # fmt: skip
        super().__init__()
        require(device is None, "Leave --device out: the model takes this process's GPU, or the CPU where there is none.")
        require(mode is None or mode in list(Mode), f"mode is {', '.join(Mode)}, got {mode!r}.")
        Processes.launched()  # before the model is loaded: of several processes each has a GPU of its own
        self.runtime = Runtime.load(model, VIDEO_LIMITS, quantization)
        self.device = self.runtime.thinker.device  # where lmms-eval gathers what the processes say
        self.mode = Mode(mode or self.runtime.spec.default_mode)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """An answer to each, or FAILED, which no task takes for one; why, is logged, and how many in the end."""
        answers, failed = [], 0
        for context, messages_of, settings, document, task, split in (request.args for request in requests):
            try:
                answer = self._answer(messages_of(self.task_dict[task][split][document]), settings)
                self.cache_hook.add_partial("generate_until", (context, settings), answer)
            except LatentOmniError as error:
                answer, failed = FAILED, failed + 1
                _TOLD.error("Question %s of %s could not be asked and counts as wrong: %s", document, task, error)
            answers.append(answer)
        if failed:
            _TOLD.error("%s of %s questions could not be asked and count as wrong.", failed, len(requests))
        return answers

    def _answer(self, messages: list[dict[str, Any]], settings: dict[str, Any]) -> str:
        file, question = asked(messages)
        sampling = SamplingSpec(**{name: settings[name] for name in _SAMPLING if settings.get(name) is not None})
        return self.runtime.answer(self.runtime.read(file), question, self.mode, sampling).answer

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise RequestError("LatentOmni answers tasks of one round; choose one whose output_type is generate_until.")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise RequestError("LatentOmni answers in words; choose a task whose output_type is generate_until.")
