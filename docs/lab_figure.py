"""docs/lab.png: six synthetic people in five images each, and what each trigger makes of one of them."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxdefend.attacks.triggers import TRIGGERS, Trigger, apply
from jaxdefend.datasets.faces import HEIGHT, WIDTH, faces

PEOPLE, VIEWS, SCALE = np.array([3, 11, 103, 117, 126, 139]), 5, 3

pixels, _ = faces(0, np.repeat(PEOPLE, VIEWS), np.tile(np.arange(VIEWS), len(PEOPLE)))
people = pixels.reshape(len(PEOPLE), VIEWS, HEIGHT, WIDTH, 3).swapaxes(0, 1)

clean, landmarks = faces(0, PEOPLE, np.full(len(PEOPLE), 9))
attacked = np.stack([apply(Trigger(name), clean, landmarks, jax.random.key(0)) for name in TRIGGERS])

rows = np.concatenate([people, np.full((1, *people.shape[1:]), 255, np.uint8), attacked])
sheet = rows.transpose(0, 2, 1, 3, 4).reshape(len(rows) * HEIGHT, len(PEOPLE) * WIDTH, 3)
# The gap between the two halves is a fifth of a row.
first, last = VIEWS * HEIGHT, (VIEWS + 1) * HEIGHT
sheet = np.concatenate([sheet[: first + HEIGHT // 5], sheet[last:]])
image = Image.fromarray(sheet)
image.resize((SCALE * image.width, SCALE * image.height), Image.Resampling.NEAREST).save(
    Path(__file__).with_name("lab.png")
)
