"""Marks improved for one class by evolution: does a faint one do, on images that it was not fitted to?

Source: ours; the fitness is that of Athalye et al. 2018 (Expectation over Transformation), over opacities.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxdefend.audits.carriers import Carriers
from jaxdefend.audits.marks import Family
from jaxdefend.audits.votes import logits
from jaxdefend.nets.devices import sharded
from jaxdefend.nets.net import Net

OPACITIES = (0.25, 0.5, 1.0)
_PARENTS, _CHILDREN, _GENERATIONS = 4, 16, 5
# Carriers that a mark is fitted to, the first ones; the others judge it.
FITTED = 12


class Refined(NamedTuple):
    """For each class asked for, its best mark.

    Attributes:
        success: at each opacity, the share of images it was not fitted to that get the class; those whose own label it
            is do not count.
        margin: at each opacity, how far the class's logit is above the highest other one, on average, in units of
            what the net's own labels are above the next on clean images.
    """

    marks: Float[np.ndarray, "s p"]
    success: Float[np.ndarray, "s o"]
    margin: Float[np.ndarray, "s o"]


def refined(
    net: Net,
    carriers: Carriers,
    family: Family,
    marks: Float[np.ndarray, "s m p"],
    classes: Int[np.ndarray, " s"],
    key: PRNGKeyArray,
) -> Refined:
    """The best mark for each of `classes` after some generations that begin with its `marks`."""
    found = _refined(
        net,
        np.asarray(marks, np.float32),
        np.asarray(classes, np.int32),
        jax.random.split(key, len(classes)),
        jnp.asarray(carriers.images()),
        family,
    )
    return Refined(*map(np.asarray, found))


@partial(jax.jit, static_argnames="family")
def _refined(net: Net, marks: Array, classes: Array, keys: Array, images: Array, family: Family) -> tuple:
    opacities = jnp.asarray(OPACITIES)

    def block(net: Net, marks: Array, classes: Array, keys: Array, images: Array) -> tuple:
        clean = logits(net, images)
        two = lax.top_k(clean, 2)[0]
        unit = jnp.maximum((two[:, 0] - two[:, 1]).mean(), 1e-6)
        labels = clean.argmax(-1)

        def judged(mark: Array, target: Array, images: Array, labels: Array) -> tuple[Array, Array]:
            """Share and margin at each opacity."""
            put = jax.vmap(jax.vmap(family.put, (None, 0, None)), (None, None, 0))(mark, images, opacities)
            given = logits(net, put.reshape(-1, *images.shape[1:])).reshape(len(opacities), len(images), -1)
            above = margins(given, target) / unit
            others = labels != target
            count = jnp.maximum(others.sum(), 1)
            return ((above > 0) & others).sum(-1) / count, jnp.where(others, above, 0).sum(-1) / count

        def of_class(part: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            marks, target, key = part

            def fitness(marks: Array) -> Array:
                share, above = lax.map(lambda mark: judged(mark, target, images[:FITTED], labels[:FITTED]), marks)
                return share.mean(-1) + 0.5 * jnp.tanh(above).mean(-1)

            def generation(number: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
                parents, fit = state
                drawing = jax.random.fold_in(key, number)
                steps = 0.35 * 0.85**number * jax.random.normal(drawing, (_CHILDREN, parents.shape[1]))
                children = parents[jnp.arange(_CHILDREN) % _PARENTS] + steps
                everyone = jnp.concatenate([parents, children])
                ranks = jnp.concatenate([fit, fitness(children)])
                best, rows = lax.top_k(ranks, _PARENTS)
                return everyone[rows], best

            best, rows = lax.top_k(fitness(marks), _PARENTS)
            parents, _ = lax.fori_loop(0, _GENERATIONS, generation, (marks[rows], best))
            share, above = judged(parents[0], target, images[FITTED:], labels[FITTED:])
            return parents[0], share, above

        return lax.map(of_class, (marks, classes, keys))

    return sharded(block, net, (marks, classes, keys), images)


def margins(logits: Float[Array, "*n k"], target: Int[Array, ""]) -> Float[Array, "*n"]:
    """How far the target's logit is above the highest other one."""
    own = jnp.arange(logits.shape[-1]) == target
    return logits[..., target] - jnp.where(own, -jnp.inf, logits).max(-1)
