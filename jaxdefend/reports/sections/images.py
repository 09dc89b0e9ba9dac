"""Images to look at, and what is called what."""

from jaxdefend.reports.activations import CLEAN
from jaxdefend.reports.blocks import (
    Block,
    Cell,
    Charts,
    Picture,
    Pictures,
    Table,
    Text,
    rows,
    uri,
)
from jaxdefend.reports.charts import (
    attack,
    count_chart,
)
from jaxdefend.reports.facts import Facts
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import printable

# Bars of a chart that shows classes.
_BARS = 10


def gallery_blocks(facts: Facts, pictures: int) -> list[Block]:
    gallery = facts.gallery
    if gallery is None:
        return []
    blocks: list[Block] = [
        Text(
            "Under each image: its label, or the attacker's target, → the net's answer, with the confidence, and where "
            f"there is one the GoodNet's answer; {gallery.backdoored} means backdoored. The most confident come first."
        )
    ]
    for group in gallery.groups:
        shown = []
        for picture in group.pictures[:pictures]:
            bad = picture.label != picture.answer if picture.set == CLEAN else picture.label == picture.answer
            mark = "flag" if picture.goodnet == gallery.backdoored else "bad" if bad else "good"
            alt = f"{picture.name}: label {picture.label}, answer {picture.answer}"
            shown.append(Picture(uri(picture.pixels), alt, picture.caption(), mark))
        heading = group.title[0].upper() + group.title[1:]
        note = f"{group.total:,} of {group.n:,} images" + (f"; {len(shown)} shown." if shown else ".")
        blocks.append(Pictures(heading, shown, note))
    return blocks


def confusion_blocks(facts: Facts) -> list[Block]:
    found = facts.confusions
    if found is None:
        return []
    blocks: list[Block] = []
    name = printable(facts.name, 60)
    charts = []
    if found.mistaken:
        wrong = [(str(of.label), of.wrong.count) for of in found.mistaken[:_BARS]]
        n = f"{found.n[CLEAN]:,} clean images"
        charts.append(count_chart(wrong, "valid", "class", f"{name}: classes most often misclassified; {n}."))
        answers = [(str(label), count) for label, count in found.wrong_answers[:_BARS]]
        charts.append(count_chart(answers, "test", "class", f"{name}: most frequent wrong answers; {n}."))
    else:
        blocks.append(Text(f"All {found.n[CLEAN]:,} clean images are recognised."))
    for number, (of, counted) in enumerate(found.attacked.items()):
        caption = f"{name}: answers to {found.n[of]:,} images with {printable(of, 40)}."
        charts.append(count_chart([(str(label), c) for label, c in counted[:_BARS]], attack(number), "class", caption))
    blocks.append(Charts(charts))
    if found.mistaken:
        lines = [
            [of.label, of.wrong, ", ".join(f"{answer} ({count})" for answer, count in of.answers[:6])]
            for of in found.mistaken[:100]
        ]
        shown = "" if len(found.mistaken) <= 100 else f" (the first 100 of {len(found.mistaken):,})"
        header = ["class", "misclassified", "called (how often)"]
        blocks.append(
            Table(f"Clean classes that are misclassified{shown}", header, rows(lines), folded=len(lines) > 10)
        )
    for of, counted in found.attacked.items():
        target = found.targets[of]
        lines = [
            [Cell(f"{label}{' (target)' if label == target else ''}", float(label)), Rate(count, found.n[of])]
            for label, count in counted[:100]
        ]
        heading = f"What images with {printable(of, 40)} are called"
        blocks.append(Table(heading, ["answer", "images"], rows(lines), folded=len(lines) > 10))
    return blocks
