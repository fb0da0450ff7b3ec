"""One evaluation on several processes, as `accelerate launch` starts them: each asks its share, and all know what came of it."""

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

__all__ = ["Processes"]

T = TypeVar("T")
_PATIENCE = timedelta(days=7)  # the others wait for the slowest share


@dataclass(frozen=True)
class Processes:
    """This process among those of a launch. index: from 0, which is the main one's."""

    index: int = 0
    count: int = 1

    @classmethod
    def launched(cls) -> "Processes":
        """As the environment says. Of several, each takes the GPU that is its own."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import Accelerator, InitProcessGroupKwargs

        joined = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
        atexit.register(joined.state.destroy_process_group)  # its threads may else be cut off when Python ends, which ends the process as a crash
        return cls(joined.process_index, joined.num_processes)

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def share(self, parts: Sequence[T]) -> list[T]:
        """Every `count`-th of the parts of some work, this process's."""
        return list(parts[self.index :: self.count])

    def gather(self, told: dict[int, T]) -> dict[int, T]:
        """What all processes tell, in the order of its numbers; every process calls it and gets all."""
        if self.count > 1:
            from accelerate.utils import gather_object

            told = dict(gather_object(list(told.items())))
        return dict(sorted(told.items()))

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
