"use strict";
(() => {
  document.documentElement.classList.add("script");

  // Tables: a click on a heading sorts by it, a second one the other way round.
  const value = (cell) => {
    const number = parseFloat(cell.dataset.sort);
    return Number.isNaN(number) ? null : number;
  };
  const compare = (column, down) => (first, second) => {
    const cells = [first.cells[column], second.cells[column]];
    const numbers = cells.map(value);
    if (numbers.some((number) => number !== null)) {
      // What is not a number stays at the end.
      if (numbers[0] === null || numbers[1] === null) return numbers[0] === null ? 1 : -1;
      return down ? numbers[1] - numbers[0] : numbers[0] - numbers[1];
    }
    const order = cells[0].textContent.localeCompare(cells[1].textContent, "en", { numeric: true });
    return down ? -order : order;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      if (!heading.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent.trim();
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(compare(column, down)));
      });
    });
  }

  // Charts: exact values where the pointer is.
  const tip = document.getElementById("tip");
  for (const hit of document.querySelectorAll("svg .hit")) {
    const title = hit.querySelector("title");
    hit.dataset.told = title.textContent;
    title.remove();
  }
  const show = (event) => {
    const hit = event.target.closest ? event.target.closest("svg .hit") : null;
    tip.hidden = !hit;
    if (!hit) return;
    tip.textContent = hit.dataset.told;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, window.innerWidth - box.width - 6);
    const y = event.clientY + 18 + box.height > window.innerHeight ? event.clientY - box.height - 10 : event.clientY + 18;
    tip.style.left = `${Math.max(4, x)}px`;
    tip.style.top = `${Math.max(4, y)}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  // The slider over the curve.
  const holder = document.getElementById("curve-data");
  const slider = document.getElementById("pruned");
  if (!holder || !slider) return;
  const data = JSON.parse(holder.textContent);
  const said = document.getElementById("pruned-said");
  const pointer = document.querySelector("#curve-chart .pointer");
  const faces = [...document.querySelectorAll(".explorer .face")];
  const percent = (share) => `${(100 * share).toFixed(2)} %`;
  const badge = (kind, text) => {
    const made = document.createElement("span");
    made.className = `badge ${kind}`;
    made.textContent = text;
    return made;
  };
  const judged = (face, answer) => {
    if (answer === data.n) return ["flag", "backdoored"];
    const asked = answer === face.label;
    if (face.clean) return asked ? ["good", `${answer} ✓`] : ["bad", `${answer} wrong`];
    return asked ? ["bad", `${answer} target`] : ["good", `${answer}`];
  };
  const move = () => {
    const k = Number(slider.value);
    const channel = k === 0 ? "none" : `channel ${data.order[k - 1]} last`;
    const rates = data.curve.map(
      (line) => `${line.name} ${percent(line.shares[k])} [${(100 * line.low[k]).toFixed(1)}, ${(100 * line.high[k]).toFixed(1)}]`
    );
    said.textContent = `${k} of ${data.order.length} channels pruned (${channel}): ${rates.join("; ")}`;
    slider.setAttribute("aria-valuetext", `${k} channels pruned`);
    if (pointer) {
      const x = Number(pointer.dataset.x0) + k * Number(pointer.dataset.dx);
      pointer.setAttribute("x1", x);
      pointer.setAttribute("x2", x);
      pointer.classList.add("shown");
    }
    data.faces.forEach((face, number) => {
      const figure = faces[number];
      if (!figure) return;
      const after = face.answers[k];
      const good = after === face.b ? face.b : data.n;
      const [kind] = judged(face, good);
      figure.className = `face ${kind}`;
      const lines = [["B", face.b], ["B′", after], ["GoodNet", good]].map(([name, answer]) => {
        const line = document.createElement("span");
        line.append(`${name} `, badge(...judged(face, answer)), document.createElement("br"));
        return line;
      });
      figure.querySelector(".answers").replaceChildren(...lines);
    });
  };
  slider.addEventListener("input", move);
  const chart = document.getElementById("curve-chart");
  if (chart) {
    chart.addEventListener("click", (event) => {
      const hits = [...chart.querySelectorAll(".hit")];
      const at = hits.indexOf(event.target);
      if (at >= 0) { slider.value = at; move(); }
    });
  }
  move();
})();
