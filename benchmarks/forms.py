"""What can be asked of a net with masked channels: which question separates clean and poisoned images best.

For each form its AUROC, and its FAR at an FRR of 5 %, on the images on which the attack succeeds; means over three
seeds. The table of docs/detect.md. Without arguments: bd_net and synthetic faces.
"""

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Num

from jaxdefend import InputError
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import inputs, runtime, terminal
from jaxdefend.datasets.images import ArrayImages, ImageSet
from jaxdefend.detectors import Masks, Persistence
from jaxdefend.detectors import masks as mask_entropy
from jaxdefend.detectors.base import Measures, combined, fitted
from jaxdefend.detectors.persistence import FITS, measures_under
from jaxdefend.nets.batches import padded
from jaxdefend.nets.channels import masked_logits
from jaxdefend.nets.devices import on_devices
from jaxdefend.nets.inference import largest, predictions
from jaxdefend.nets.net import Net
from jaxdefend.repairs.curve import ascending, mean_activations, nested_masks
from jaxdefend.results.detection import accepted_at, auroc
from jaxdefend.results.progress import Report
from jaxdefend.results.text import table

SEEDS = range(3)
ORDERS = 5
FRR = 0.05
LIMIT = 300
BATCH = 64

Scores = dict[str, Float[np.ndarray, " n"]]


def scores(net: Net, images: ImageSet, order: Sequence[int], seed: int) -> tuple[Scores, Measures]:
    """Of each form, higher meaning backdoored; and the measures of the detector "persistence".

    Curves are nested masks, along each order those of 1 … 59 pruned channels: the rest is the same for every order.
    """
    mask_key, order_key = jax.random.split(jax.random.key(seed))
    keeps = Masks().keep, Persistence().keep
    many, few = (mask_entropy.random_masks(mask_key, net, keep=keep) for keep in keeps)
    drawn = [jax.random.permutation(key, len(order)) for key in jax.random.split(order_key, ORDERS)]
    masks = {
        f"keep {keeps[0]:g}": many,
        f"keep {keeps[1]:g}": few,
        "ascending curve": _curves([order]),
        "descending curve": _curves([order[::-1]]),
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
    return found, measures_under(net, padded(images, BATCH), few)


def _curves(orders: Sequence) -> Float[np.ndarray, "m c"]:
    return np.concatenate([nested_masks(np.asarray(order))[1:-1] for order in orders])


@jax.jit
def _of_label(
    net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], masks: Float[Array, "m k"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Share of the masks under which the net's label stays, and its prediction shift.

    Source: Li et al. 2025 (PSBD): p(label) − mean over the masks of p(label), there under dropout.
    """
    place = net.graph.masked_at(net.last_convolution)
    activations = net.features(pixels, (place,))[place]
    own = largest(net.logits({place: activations}))

    def of_one(image: tuple[Array, Array]) -> tuple[Array, Array]:
        activations, label = image
        found = masked_logits(net, place, activations, {}, jnp.concatenate([jnp.ones((1, masks.shape[1])), masks]))
        shares = jax.nn.softmax(found)[:, label]
        stays = (found[1:, label] == found[1:].max(axis=-1)).mean(dtype=jnp.float32)
        return stays, shares[0] - shares[1:].mean()

    return lax.map(of_one, (activations, own))


def main(arguments: Sequence[str] | None = None) -> int:
    return runtime.run(_compare, arguments)


def _compare(arguments: Sequence[str], report: Report) -> None:
    parser = options_of.parser("forms", __doc__, "")
    options_of.add_model(parser)
    options_of.add_clean(parser, "--valid", "clean images for means and standard deviations")
    options_of.add_clean(parser, "--clean", "clean images to measure on")
    options_of.add_poisoned(parser)
    options_of.add_input_scale(parser)
    options = parser.parse_args(arguments)

    net = inputs.open_net(options.model, input_scale=options.input_scale)
    named = inputs.Named(options.valid, options.clean, options.poisoned, options.target, options.labels)
    sets = inputs.open_sets(named, options.model, net, report, needs="test", with_valid=True)
    if sets.valid is None or sets.test is None or not sets.poisoned:
        raise InputError("expected --valid, --clean and --poisoned, or a shipped net")
    valid, clean = _some(sets.valid), _some(sets.test)
    net = inputs.scaled(net, valid)
    order = ascending(mean_activations(net, padded(valid, BATCH), net.last_convolution)).tolist()
    hit = {}
    for name, images in sets.poisoned.items():
        some = _some(images)
        labels, _ = predictions(net, padded(some, BATCH))
        hit[name] = ArrayImages(some.pixels[labels == some.labels])

    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for seed in SEEDS:
        _, usual = scores(net, valid, order, seed)
        fits = {name: fitted(measure) for name, measure in usual.items()}

        def whole(images: ImageSet, seed=seed, fits=fits) -> Scores:
            found, measures = scores(net, images, order, seed)
            return {"persistence": combined({name: measures[name] for name in FITS}, fits)} | found

        on_clean = whole(clean)
        for name, images in hit.items():
            for form, values in whole(images).items():
                far = accepted_at(on_clean[form], values, FRR) / len(images)
                found.setdefault(form, {}).setdefault(name, []).append((auroc(on_clean[form], values), far))
    rows = [[form, *(_cell(values) for values in by_set.values())] for form, by_set in found.items()]
    terminal.show(table(["form", *(f"{name} ({len(images)})" for name, images in hit.items())], rows))


def _some(images: ImageSet) -> ArrayImages:
    step = -(-len(images) // LIMIT)
    assert images.labels is not None
    return ArrayImages(np.rint(images[::step]).astype(np.uint8), images.labels[::step])


def _cell(values: list[tuple[float, float]]) -> str:
    area, far = np.mean(values, axis=0)
    return f"{area:.3f}, {100 * far:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
