"use strict";
// Draws the pictures of the page from the JSON beside each of them, and tells of the trial that is looked at.
(() => {
  const root = document.documentElement;
  const ANSWERS = { "met": "--good", "open": "--open", "not met": "--bad" };
  // Asked once for each drawing: a picture may have a thousand dots.
  const palette = new Map();
  function colour(name) {
    if (!palette.has(name)) palette.set(name, getComputedStyle(root).getPropertyValue(name).trim());
    return palette.get(name);
  }
  const font = "12.5px system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif";
  // Between two trials there is none.
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
  const drawn = [];

  function axis(title, write, size) {
    return {
      label: title, labelFont: font, labelSize: 22, font, size, stroke: colour("--soft"),
      grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 5 },
      values: (_, all) => all.map(write),
    };
  }

  // As many digits as tell the steps of the axis apart.
  function digits(all) {
    const step = all.length > 1 ? Math.abs(all[1] - all[0]) : 1;
    let count = 0;
    while (count < 6 && Math.abs(step * 10 ** count - Math.round(step * 10 ** count)) > 1e-3) count += 1;
    return count;
  }

  function numbers(title, size, scale, end) {
    const made = axis(title, null, size);
    made.values = (_, all) => all.map((v) => (v * scale).toFixed(digits(all.map((w) => w * scale))) + end);
    return made;
  }

  function ruler(u, from, to, dash, name, width) {
    const c = u.ctx;
    c.save();
    c.beginPath();
    c.setLineDash(dash.map((d) => d * uPlot.pxRatio));
    c.strokeStyle = colour(name);
    c.lineWidth = width * uPlot.pxRatio;
    c.moveTo(from[0], from[1]);
    c.lineTo(to[0], to[1]);
    c.stroke();
    c.restore();
  }

  function text(u, words, x, y, align) {
    const c = u.ctx;
    c.save();
    c.font = font.replace("12.5px", 12 * uPlot.pxRatio + "px");
    c.fillStyle = colour("--soft");
    c.textAlign = align;
    c.fillText(words, x, y);
    c.restore();
  }

  // Bounds, or where a search began: an upright line, with its name at the foot.
  function uprights(u, lines) {
    const { top, height, left, width } = u.bbox;
    for (const line of lines) {
      const x = u.valToPos(line.x, "x", true);
      if (x < left - 1 || x > left + width + 1) continue;
      ruler(u, [x, top], [x, top + height], [5, 4], "--soft", 1.2);
      const right = x > left + width * 0.8;
      text(u, line.text, x + (right ? -5 : 5) * uPlot.pxRatio, top + height - 7 * uPlot.pxRatio,
        right ? "right" : "left");
    }
  }

  function disc(u, x, y, radius, name, ring) {
    const c = u.ctx;
    c.beginPath();
    c.arc(u.valToPos(x, "x", true), u.valToPos(y, "y", true), radius * uPlot.pxRatio, 0, 2 * Math.PI);
    c.fillStyle = colour(name);
    if (!ring) c.fill();
    c.strokeStyle = colour(ring ? name : "--card");
    c.lineWidth = (ring ? 2 : 1) * uPlot.pxRatio;
    c.stroke();
  }

  function finished(u, each) {
    const name = ANSWERS[each.answer];
    const at = (x, y) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
    ruler(u, at(each.xl, each.y), at(each.xh, each.y), [], name, 1.8);
    ruler(u, at(each.x, each.yl), at(each.x, each.yh), [], name, 1.8);
    disc(u, each.x, each.y, 4.5, name);
    const [x, y] = at(each.x, each.y);
    const right = x > u.bbox.left + u.bbox.width * 0.85;
    text(u, each.text, x + (right ? -8 : 8) * uPlot.pxRatio, y - 8 * uPlot.pxRatio, right ? "right" : "left");
  }

  function trials(holder, data, state) {
    const scale = data.percent ? 100 : 1;
    const paint = (u) => {
      const c = u.ctx;
      const { left, top, width, height } = u.bbox;
      c.save();
      c.beginPath();
      c.rect(left, top, width, height);
      c.clip();
      const y = u.valToPos(data.unpruned, "y", true);
      ruler(u, [left, y], [left + width, y], [2, 4], "--ink", 1.3);
      uprights(u, data.lines);
      data.best.slice(1).forEach((to, i) => {
        const from = data.best[i];
        const at = (x, y) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
        // Between two trials there is none: up to the next one the last one is the best.
        ruler(u, at(from[0], from[1]), at(to[0], from[1]), [], "--best", 1.2);
        ruler(u, at(to[0], from[1]), at(to[0], to[1]), [], "--best", 1.2);
      });
      // The chosen one last: nothing covers it.
      for (const [mark, radius, name] of [[0, 3.2, "--tried"], [1, 4.2, "--best"], [2, 6.2, "--chosen"]]) {
        data.marks.forEach((m, i) => { if (m === mark) disc(u, data.x[i], data.y[i], radius, name); });
      }
      data.finished.forEach((each) => finished(u, each));
      disc(u, data.x[state.at], data.y[state.at], 10, "--ink", true);
      c.restore();
    };
    const share = data.xTimes ? "x" : "";
    return new uPlot({
      width: holder.clientWidth, height: holder.clientHeight, legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false, range: () => data.xRange }, y: { range: () => data.yRange } },
      axes: [numbers(data.xTitle, 30, 1, share), numbers(data.yTitle, 58, scale, data.percent ? " %" : "")],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { draw: [paint] },
    }, [data.xRange, data.yRange], holder);
  }

  function course(holder, data) {
    const series = data.series.map((each) => each.style === "dots"
      ? { paths: () => null, points: { show: true, size: 6, width: 0, fill: colour("--" + each.colour) } }
      : { stroke: colour("--" + each.colour), width: 1.8, points: { show: each.y.length === 1 } });
    return new uPlot({
      width: holder.clientWidth, height: holder.clientHeight, legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false } },
      axes: [{ ...numbers(data.xTitle, 30, 1, ""), incrs: WHOLE }, numbers(data.yTitle, 58, 1, "")],
      series: [{}, ...series],
      hooks: { draw: [(u) => uprights(u, data.lines)] },
    }, [data.x, ...data.series.map((each) => each.y)], holder);
  }

  function tell(box, data, at) {
    const line = document.createElement("p");
    const name = document.createElement("b");
    name.textContent = data.told[at][0];
    line.append(name, ": " + data.told[at].slice(1).join(", "));
    const widths = document.createElement("div");
    widths.className = "widths";
    // It scrolls where there are many, which the keyboard must reach.
    widths.tabIndex = 0;
    widths.setAttribute("role", "group");
    widths.setAttribute("aria-label", "Widths");
    data.groups.forEach((group, i) => {
      const each = document.createElement("span");
      each.textContent = group + " " + data.widths[at][i] + " of " + data.channels[i];
      widths.append(each);
    });
    box.replaceChildren(line, widths);
  }

  function nearest(plot, data, event) {
    const place = plot.over.getBoundingClientRect();
    const x = event.clientX - place.left;
    const y = event.clientY - place.top;
    let found = -1;
    let least = 40 * 40;
    data.x.forEach((value, i) => {
      const away = (plot.valToPos(value, "x") - x) ** 2 + (plot.valToPos(data.y[i], "y") - y) ** 2;
      if (away < least) { least = away; found = i; }
    });
    return found;
  }

  function set(holder) {
    const data = JSON.parse(document.getElementById(holder.id + "-data").textContent);
    const state = { at: Math.max(0, (data.marks || []).indexOf(2)), plot: null };
    const figure = holder.closest("figure");
    const box = figure.querySelector(".told");
    const draw = () => {
      if (state.plot) state.plot.destroy();
      holder.replaceChildren();
      state.plot = data.kind === "trials" ? trials(holder, data, state) : course(holder, data);
      state.width = holder.clientWidth;
    };
    drawn.push(draw);
    draw();
    new ResizeObserver(() => { if (holder.clientWidth !== state.width) draw(); }).observe(holder);
    if (data.kind !== "trials") return;
    const look = (at) => {
      if (at < 0 || at === state.at) return;
      state.at = at;
      tell(box, data, at);
      state.plot.redraw(false, false);
    };
    tell(box, data, state.at);
    holder.addEventListener("pointermove", (event) => look(nearest(state.plot, data, event)));
    holder.addEventListener("pointerdown", (event) => look(nearest(state.plot, data, event)));
    figure.querySelectorAll("[data-turn]").forEach((button) => button.addEventListener("click", () => {
      look((state.at + Number(button.dataset.turn) + data.x.length) % data.x.length);
    }));
  }

  const again = () => { palette.clear(); drawn.forEach((draw) => draw()); };
  const paper = (on) => { root.classList.toggle("paper", on); again(); };
  document.querySelectorAll(".plot").forEach(set);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
})();
