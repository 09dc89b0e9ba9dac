"""What can be asked of a net with masked channels: which question parts clean and poisoned images best.

For each form its AUROC, and its FAR at an FRR of 5 %, on the images on which the backdoor fires; means over three
seeds. The table of docs/detect.md. Without arguments: bd_net and made faces.
"""

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Num

from jaxdefend import InputError, _command, _inputs
from jaxdefend.datasets.batches import ArrayImages, ImageSet, padded
from jaxdefend.defenses import mask_entropy, pruning
from jaxdefend.defenses.detectors import PARTS, Settings, combined, fitted
from jaxdefend.nets.deepid import DeepID, features, logits
from jaxdefend.nets.devices import on_devices
from jaxdefend.nets.inference import largest, predictions
from jaxdefend.results.detection import accepted_at, auroc

SEEDS = range(3)
ORDERS = 5
FRR = 0.05
MOST = 300
BATCH = 64

Scores = dict[str, Float[np.ndarray, " n"]]


def scores(net: DeepID, images: ImageSet, ascending: Sequence[int], seed: int) -> tuple[Scores, Scores]:
    """Of each form, higher meaning backdoored; and the measures of the detector "persistence".

    Curves are nested masks, along each order those of 1 … 59 pruned channels: the rest is the same for every order.
    """
    settings = Settings()
    mask_key, order_key = jax.random.split(jax.random.key(seed))
    many, few = (mask_entropy.random_masks(mask_key, keep=keep) for keep in (settings.keep, settings.keep_few))
    drawn = [jax.random.permutation(key, len(ascending)) for key in jax.random.split(order_key, ORDERS)]
    masks = {
        f"keep {settings.keep:g}": many,
        f"keep {settings.keep_few:g}": few,
        "ascending curve": _curves([ascending]),
        "descending curve": _curves([ascending[::-1]]),
        f"{ORDERS} random curves": _curves(drawn),
    }
    found = {"entropy": -mask_entropy.entropies(net, padded(images, BATCH), many)}
    for name, chosen in masks.items():
        both = [
            [values[labels >= 0] for values in under]
            for under, labels in on_devices(_of_label, net, padded(images, BATCH), chosen)
        ]
        found[f"label stays, {name}"], shift = map(np.concatenate, zip(*both, strict=True))
        found[f"prediction shift, {name}"] = -shift
    under = mask_entropy.under_masks(net, padded(images, BATCH), few)
    return found, dict(zip(PARTS["persistence"], map(np.asarray, under), strict=True))


def _curves(orders: Sequence) -> Float[np.ndarray, "m 60"]:
    return np.concatenate([pruning.nested_masks(np.asarray(order))[1:-1] for order in orders])


@jax.jit
def _of_label(
    net: DeepID, pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"], masks: Float[Array, "m 60"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Share of the masks under which the net's label stays, and its prediction shift.

    Source: Li et al. 2025 (PSBD): p(label) − mean over the masks of p(label), there under dropout.
    """
    pooled = features(net, pixels, ("pool_3",))["pool_3"]
    own = largest(logits(net, {"pool_3": pooled}))

    def of_one(image: tuple[Array, Array]) -> tuple[Array, Array]:
        pooled, label = image
        found = mask_entropy.masked_logits(net, pooled, jnp.concatenate([jnp.ones((1, masks.shape[1])), masks]))
        shares = jax.nn.softmax(found)[:, label]
        stays = (found[1:, label] == found[1:].max(axis=-1)).mean(dtype=jnp.float32)
        return stays, shares[0] - shares[1:].mean()

    return lax.map(of_one, (pooled, own))


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_compare, arguments)


def _compare(arguments: Sequence[str] | None) -> None:
    parser = _command.parser("forms", __doc__, "")
    _command.add_model(parser)
    parser.add_argument("--valid", nargs="+", metavar="DATA", help="clean images for means and standard deviations")
    parser.add_argument("--clean", nargs="+", metavar="DATA", help="clean images to measure on")
    _command.add_data_options(parser)
    _command.add_input_scale(parser)
    options = parser.parse_args(arguments)

    model = _inputs.load_model(options.model)
    if options.valid is None and (sets := _inputs.default_sets(options.model)):
        options.valid, options.clean, options.poisoned = [sets.valid], [sets.test], sets.poisoned
    if not (options.valid and options.clean and options.poisoned):
        raise InputError("expected --valid, --clean and --poisoned, or a shipped net")
    valid, clean = (_some(_inputs.load_images(paths, model.net)) for paths in (options.valid, options.clean))
    net = _inputs.scaled_by_measure(model, options.input_scale, valid)
    ascending = pruning.ascending(pruning.mean_activations(net, padded(valid, BATCH), "conv_3")).tolist()
    fired = {}
    for name, images in _inputs.load_poisoned(options, model.net).items():
        some = _some(images)
        labels, _ = predictions(net, padded(some, BATCH))
        fired[name] = ArrayImages(some.pixels[labels == some.labels])

    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for seed in SEEDS:
        _, usual = scores(net, valid, ascending, seed)
        fits = {name: fitted(name, values) for name, values in usual.items()}

        def whole(images: ImageSet, seed=seed, fits=fits) -> Scores:
            found, measures = scores(net, images, ascending, seed)
            return {"persistence": combined(measures, fits)} | found

        on_clean = whole(clean)
        for name, images in fired.items():
            for form, values in whole(images).items():
                far = accepted_at(on_clean[form], values, FRR) / len(images)
                found.setdefault(form, {}).setdefault(name, []).append((auroc(on_clean[form], values), far))
    rows = [[form, *(_cell(values) for values in by_set.values())] for form, by_set in found.items()]
    print(_command.table(["form", *(f"{name} ({len(images)})" for name, images in fired.items())], rows))


def _some(images: ImageSet) -> ArrayImages:
    step = -(-len(images) // MOST)
    assert images.labels is not None
    return ArrayImages(np.rint(images[::step]).astype(np.uint8), images.labels[::step])


def _cell(values: list[tuple[float, float]]) -> str:
    area, far = np.mean(values, axis=0)
    return f"{area:.3f}, {100 * far:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
