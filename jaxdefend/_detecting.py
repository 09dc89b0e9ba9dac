"""What detect evaluate makes of scores: the blocks of detect.json, the columns of detect.csv, the table, a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdefend import _command, _guards

if TYPE_CHECKING:
    import numpy as np

    from jaxdefend.datasets.batches import ImageSet


def evaluated(
    guard: _guards.Guard, name: str, found: "Mapping[str, np.ndarray]", right: "Mapping[str, np.ndarray]"
) -> dict:
    """The block of one detector in detect.json; `right` says where the net gives the label asked for."""
    from jaxdefend.results import detection as rules
    from jaxdefend.results.rates import clean_rate, interval, poisoned_rate

    level = guard.detectors[name]
    clean, threshold = found["clean"], level["threshold"]
    passes = {of: values <= threshold for of, values in found.items()}

    def parted(poisoned: "np.ndarray", suffix: str) -> dict:
        if not len(poisoned):
            return {f"auroc{suffix}": None, f"far_at_frr{suffix}": None, f"equal_error_rate{suffix}": None}
        area = rules.auroc(clean, poisoned)
        accepted = {f"{frr:g}": rules.accepted_at(clean, poisoned, frr) for frr in rules.FRRS}
        return {
            f"auroc{suffix}": area,
            f"auroc_interval{suffix}": rules.auroc_interval(area, len(clean), len(poisoned)),
            f"far_at_frr{suffix}": {frr: count / len(poisoned) for frr, count in accepted.items()},
            f"far_interval_at_frr{suffix}": {frr: interval(count, len(poisoned)) for frr, count in accepted.items()},
            f"equal_error_rate{suffix}": rules.equal_error_rate(clean, poisoned),
        }

    poisoned = {of.removeprefix("poisoned "): of for of in found if of != "clean"}
    return {
        **{key: level[key] for key in ("frr_asked", "threshold", "levels")},
        "frr_measured": float(1 - passes["clean"].mean()),
        "frr_interval": interval(int((~passes["clean"]).sum()), len(clean)),
        "calibration_score": level["clean_score"],
        "clean_score": {"mean": float(clean.mean()), "std": float(clean.std())},
        "thresholds_at_frr": {f"{frr:g}": rules.quantile_threshold(clean, frr) for frr in rules.FRRS},
        "poisoned": {
            short: {
                "n": len(found[of]),
                "fires": int(right[of].sum()),
                **parted(found[of], ""),
                **parted(found[of][right[of]], "_where_it_fires"),
            }
            for short, of in poisoned.items()
        },
        "guarded": {
            "clean": clean_rate(int((right["clean"] & passes["clean"]).sum()), len(clean)),
            "poisoned": {
                short: poisoned_rate(int((right[of] & passes[of]).sum()), len(found[of]))
                for short, of in poisoned.items()
            },
        },
    }


def columns(guard: _guards.Guard, sets, labels, right, found) -> dict:
    """detect.csv: an image a row."""
    import numpy as np

    columns = {
        "set": [name for name, images in sets.items() for _ in range(len(images))],
        "index": np.concatenate([np.arange(len(images)) for images in sets.values()]),
        "label": np.concatenate([images.labels for images in sets.values()]),
        "predicted": np.concatenate(list(labels.values())),
    }
    for name in guard.detection.names:
        scores = np.concatenate([values[name] for values in found.values()])
        columns |= {
            f"{name}_score": scores.astype(float),
            f"{name}_rejected": scores > guard.detectors[name]["threshold"],
        }
    return columns


def draw_superimposed(path: Path, guard: _guards.Guard, sets: "Mapping[str, ImageSet]") -> None:
    """A clean and a poisoned image under the same overlays, and what the net calls each."""
    import numpy as np

    from jaxdefend.defenses.strip import superimpositions
    from jaxdefend.nets.inference import labels_and_confidences
    from jaxdefend.results import plots

    pool, blend = guard.detection.pool, guard.detection.settings.blend
    assert pool is not None
    overlays = pool[:: max(1, len(pool) // 6)][:6]
    rows = {}
    for name, images in sets.items():
        image = np.asarray(images[:1])[0]
        shown = np.concatenate([image[None].astype(np.float32), superimpositions(image, overlays, blend)])
        rows[name] = (shown, np.asarray(labels_and_confidences(guard.detection.net, shown)[0]))
    plots.write_superimposed(path, overlays, rows)


def evaluation_table(blocks: Mapping[str, dict]) -> str:
    def row(name: str, of: str, block: dict) -> list[str]:
        measured = block["poisoned"][of]
        area, far = measured["auroc_where_it_fires"], measured["far_at_frr_where_it_fires"]
        return [
            name,
            of,
            f"{measured['fires']} of {measured['n']}",
            "–" if area is None else f"{area:.4f}",
            *(["–", "–"] if far is None else [f"{100 * far[frr]:.1f} %" for frr in ("0.01", "0.05")]),
            f"{100 * block['guarded']['clean']['accuracy']:.2f} %",
            f"{100 * block['guarded']['poisoned'][of]['attack_success']:.2f} %",
        ]

    rows = [row(name, of, block) for name, block in blocks.items() for of in block["poisoned"]]
    header = [
        "detector",
        "poisoned set",
        "fires",
        "AUROC",
        "FAR at FRR 1 %",
        "at 5 %",
        "guarded accuracy",
        "guarded ASR",
    ]
    return _command.table(header, rows)
