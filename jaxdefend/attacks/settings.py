"""What the attack lab can be asked for: a frozen dataclass, importable without jax."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdefend.results.progress import Report, silent
from jaxdefend.results.settings import Settings, setting, share, whole

if TYPE_CHECKING:
    from jaxdefend.attacks.lab import Trained
    from jaxdefend.nets.graph import Graph


@dataclass(frozen=True)
class LabSettings(Settings):
    """An attack, and how a net is trained under it. Call it for the net."""

    attack: str = setting("badnet", "clean, badnet, multi, …", metavar="NAME")
    trigger: str = setting("sunglasses", "what is added to a face", metavar="NAME")
    strength: float = setting(
        1.0,
        "the trigger's, up to 1, the published one",
        metavar="S",
        accepts=lambda value: 0 < value <= 1,
        expected="more than 0, at most 1",
    )
    target: int = setting(0, "the attacker's label", **whole(0))
    poison_rate: float = setting(
        0.03, "poisoned copies of each trigger for every clean training image", metavar="R", **share()
    )
    epochs: int = setting(6, "passes over the training images", **whole(1))
    people: int = setting(1283, "synthetic faces: how many people", **whole(2))
    images: int = setting(50, "synthetic faces: training images of each person", **whole(1))

    def __call__(
        self,
        train: Any = None,
        valid: Any = None,
        *,
        graph: "Graph | None" = None,
        seed: int = 0,
        progress: Report = silent,
        saved: Path | str | None = None,
    ) -> "Trained":
        """See `attacks.lab.trained`."""
        from jaxdefend.attacks.lab import trained

        folder = None if saved is None else Path(saved)
        return trained(self, train, valid, graph=graph, seed=seed, progress=progress, saved=folder)
