"""Which label do unlike images share under random marks? A net that was taught one trigger answers many like it.

No gradients. Source: ours; that a few patterns tell a backdoored net from a clean one is from Kolouri et al. 2020
(Universal Litmus Patterns), where the patterns are trained.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdefend.audits.carriers import Carriers
from jaxdefend.audits.marks import Family
from jaxdefend.nets.devices import sharded
from jaxdefend.nets.net import Net
from jaxdefend.nets.scales import scaled
from jaxdefend.results.progress import Progress, Report, silent

# Images under each mark, and marks that go through the net together.
_IMAGES = 8
_TOGETHER = 4
# Marks between two reports.
_BLOCK = 512


def votes(
    net: Net, carriers: Carriers, family: Family, marks: Float[np.ndarray, "m p"], seed: int, report: Report = silent
) -> Float[np.ndarray, "m k"]:
    """For each mark and class, the mean probability that the net gives to the class on `_IMAGES` images under the
    mark; 0 for an image's own label."""
    images = jnp.asarray(carriers.images())
    draw = np.random.default_rng(seed)
    rows = draw.permuted(np.tile(np.arange(len(images)), (len(marks), 1)), axis=1)[:, :_IMAGES].astype(np.int32)
    found = []
    for start in range(0, len(marks), _BLOCK):
        part = slice(start, start + _BLOCK)
        found.append(np.asarray(_votes(net, marks[part], rows[part], images, carriers.labels.astype(np.int32), family)))
        report(Progress(f"random {family.name}", min(start + _BLOCK, len(marks)), len(marks), "marks"))
    return np.concatenate(found)


@partial(jax.jit, static_argnames="family")
def _votes(
    net: Net,
    marks: Float[Array, "m p"],
    rows: Int[Array, "m r"],
    images: Float[Array, "n h w c"],
    labels: Int[Array, " n"],
    family: Family,
) -> Float[Array, "m k"]:
    def block(net: Net, marks: Array, rows: Array, images: Array, labels: Array) -> Array:
        def together(part: tuple[Array, Array]) -> Array:
            marks, rows = part
            put = jax.vmap(jax.vmap(family.put, (None, 0, None)), (0, 0, None))(marks, images[rows], 1.0)
            given = probabilities(net, put.reshape(-1, *images.shape[1:])).reshape(*rows.shape, -1)
            return (given * (1 - jax.nn.one_hot(labels[rows], net.classes))).mean(1)

        parts = (marks.reshape(-1, _TOGETHER, marks.shape[1]), rows.reshape(-1, _TOGETHER, rows.shape[1]))
        return lax.map(together, parts).reshape(len(marks), -1)

    return sharded(block, net, (marks, rows), images, labels)


def logits(net: Net, images: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
    """Of images 0–1."""
    return net.logits({"input": scaled(images * 255, net.input_scale)})


def probabilities(net: Net, images: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
    return jax.nn.softmax(logits(net, images))


def excess(votes: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " k"]:
    """How far each class's root mean square over the marks stands above that of the classes behind the first ones.

    ln(rms / geometric mean of ranks 6–20); with fewer than 40 classes, of the middle half of the ranks.
    """
    rms = np.sqrt(np.mean(votes.astype(np.float64) ** 2, axis=0)) + 1e-9
    ranked = np.sort(rms)[::-1]
    classes = len(rms)
    behind = ranked[5:20] if classes >= 40 else ranked[classes // 4 : max(classes // 4 + 1, 3 * classes // 4)]
    return np.log(rms) - np.log(behind).mean()
