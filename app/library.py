"""The one door to what brings torch and transformers in: not with the page, and not from two threads at once."""

import gc
import threading
from functools import cache
from types import SimpleNamespace

__all__ = ["library"]

_IMPORTING = threading.Lock()


def library() -> SimpleNamespace:
    """The library's functions that need torch, by name. The first caller imports them while others wait: the modules of
    transformers import their parts when they are first used, which fails where two threads do it at once."""
    return _imported()


@cache
def _imported() -> SimpleNamespace:
    with _IMPORTING:
        from latentomni.attention import attention_record
        from latentomni.avworld.selftest import draw_trial, judge, question_truth
        from latentomni.avworld.writing import write_clip
        from latentomni.plan import plan_run
        from latentomni.reruns import Change, replay, rerun
        from latentomni.runtime import Runtime

        gc.collect()
        gc.freeze()  # half a million objects that stay: a full collection took 0.3 s over them, so Python put it off and garbage grew
        return SimpleNamespace(
            Change=Change, Runtime=Runtime, attention_record=attention_record, draw_trial=draw_trial, judge=judge, plan_run=plan_run,
            question_truth=question_truth, replay=replay, rerun=rerun, write_clip=write_clip,
        )  # fmt: skip
