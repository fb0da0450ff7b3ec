"""What is known of the right answer to a question: the answer itself, and where in the clip its evidence lies. Needs no torch."""

from dataclasses import dataclass

from latentomni.clock import Window

__all__ = ["Truth"]

_MODALITIES = ("visual", "audio", "both")


@dataclass(frozen=True)
class Truth:
    """answer: as it was drawn or published. is_right: whether the run gave it. windows: where to look or listen, in the order of the
    questions' steps; empty where that is not known. modalities: of each window, "visual", "audio" or "both"."""

    answer: str
    is_right: bool
    windows: tuple[Window, ...] = ()
    modalities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.modalities) != len(self.windows) or not set(self.modalities) <= set(_MODALITIES):
            raise ValueError(f"{len(self.windows)} true windows have the modalities {self.modalities}, expected one of {_MODALITIES} each")

    def __str__(self) -> str:
        """`blue, the answer is wrong; [2.0-4.0 s] visual`"""
        spans = ", ".join(f"{window} {modality}" for window, modality in zip(self.windows, self.modalities, strict=True))
        return f"{self.answer}, the answer is {'right' if self.is_right else 'wrong'}" + (f"; {spans}" if spans else "")
