// Panels beside the image: classes, the sliders of the CRF, and time by stage.

const MANY_CLASSES = 40;
const element = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export class Legend {
  // Calls `change()` when a class is shown or hidden; `hidden` has the ids of those that are.
  constructor(classes, change) {
    this.classes = classes;
    this.change = change;
    this.hidden = new Set();
    this.rows = classes.length > MANY_CLASSES ? new Map() : new Map(classes.map((_, id) => [id, this.#row(id)]));
    element("legend").replaceChildren(...[...this.rows.values()].map((row) => row.item));
    element("classes-all").addEventListener("click", () => this.showAll());
  }

  // Shares of the pixels by class; null where there are no labels.
  setShares(shares) {
    if (this.classes.length > MANY_CLASSES && shares !== null) this.#listPresent(shares);
    for (const [id, { item, bar, text }] of this.rows) {
      const share = shares?.[id] ?? 0;
      bar.style.inlineSize = `${share * 100}%`;
      text.textContent = shares === null ? "" : percent(share);
      item.classList.toggle("is-absent", shares !== null && share === 0);
    }
  }

  toggle(place) {
    const id = [...this.rows.keys()][place];
    if (id !== undefined) this.rows.get(id).box.click();
  }

  showAll() {
    this.hidden.clear();
    for (const { box } of this.rows.values()) box.checked = true;
    this.#changed();
  }

  #changed() {
    element("classes-all").disabled = this.hidden.size === 0;
    this.change();
  }

  #row(id) {
    const { name, color } = this.classes[id];
    const box = make("input", { type: "checkbox", checked: !this.hidden.has(id) });
    box.addEventListener("change", () => {
      if (box.checked) this.hidden.delete(id);
      else this.hidden.add(id);
      this.#changed();
    });
    const swatch = make("span", { className: "swatch" });
    swatch.style.backgroundColor = `rgb(${color.join()})`;
    const bar = make("span");
    const text = make("span", { className: "figure" });
    const item = make(
      "li",
      {},
      make("label", {}, box, swatch, make("span", { className: "name", textContent: name }), text),
      make("span", { className: "share", ariaHidden: "true" }, bar),
    );
    bar.style.backgroundColor = swatch.style.backgroundColor;
    return { item, box, bar, text };
  }

  // Of very many classes only those that are there have a row.
  #listPresent(shares) {
    const present = [...shares.keys()].filter((id) => shares[id] > 0);
    this.rows = new Map(present.map((id) => [id, this.#row(id)]));
    element("legend").replaceChildren(...[...this.rows.values()].map((row) => row.item));
  }
}

const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(share * 100).toFixed(1)} %`);

const SLIDERS = [
  { name: "bilateral_weight", group: "Appearance", label: "Weight", symbol: ["w", "b"], min: 0, max: 20, step: 0.5 },
  { name: "bilateral_sigma_xy_px", label: "Reach", symbol: ["σ", "xy"], unit: "px", min: 1, max: 200, step: 1 },
  { name: "bilateral_sigma_rgb", label: "Colour tolerance", symbol: ["σ", "rgb"], min: 1, max: 60, step: 0.5 },
  { name: "gaussian_weight", group: "Smoothness", label: "Weight", symbol: ["w", "g"], min: 0, max: 20, step: 0.5 },
  { name: "gaussian_sigma_xy_px", label: "Reach", symbol: ["σ", "γ"], unit: "px", min: 0.5, max: 20, step: 0.5 },
  { name: "unary_temperature", group: "Inference", label: "Temperature", symbol: ["T", ""], min: 0.2, max: 5, step: 0.1 },
  { name: "iterations", label: "Iterations", symbol: ["n", ""], min: 0, max: 20, step: 1 },
];

export class Sliders {
  // Calls `change(crf, time)` with all parameters and the time of the event.
  constructor(crf, mostIterations, change) {
    this.change = change;
    this.fields = new Map();
    const box = element("sliders");
    let group = null;
    for (const slider of SLIDERS) {
      if (slider.group) {
        group = make("fieldset", {}, make("legend", { textContent: slider.group }));
        box.append(group);
        this.group = slider.group;
      }
      group.append(this.#field({ ...slider, group: this.group, most: slider.name === "iterations" ? mostIterations : null }));
    }
    this.set(crf);
  }

  get value() {
    const values = Object.fromEntries([...this.fields].map(([name, { number }]) => [name, Number(number.value)]));
    const { iterations, ...params } = values;
    return { params, iterations };
  }

  set({ params, iterations }) {
    for (const [name, { range, number }] of this.fields) {
      const value = name === "iterations" ? iterations : params[name];
      number.value = value;
      range.value = value;
      fill(range);
    }
  }

  #field({ name, group, label, symbol, unit, min, max, step, most }) {
    const [letter, index] = symbol;
    const words = `${group}: ${label.toLowerCase()}`;
    const range = make("input", { type: "range", id: `crf-${name}`, min, max, step });
    range.setAttribute("aria-label", words);
    const least = name.includes("sigma") ? 0.1 : min;
    const number = make("input", { type: "number", min: least, max: most ?? "", step: name === "iterations" ? 1 : "any", required: true });
    number.setAttribute("aria-label", `${words}, as a number`);
    number.dataset.name = name;
    this.fields.set(name, { range, number });
    range.addEventListener("input", (event) => {
      number.value = range.value;
      fill(range);
      this.change(this.value, event.timeStamp);
    });
    number.addEventListener("input", (event) => {
      if (!number.checkValidity()) return;
      range.value = number.value;
      fill(range);
      this.change(this.value, event.timeStamp);
    });
    const title = make("span", { className: "slider-name", textContent: label });
    const sign = make("span", { className: "symbol", ariaHidden: "true" }, letter, make("sub", { textContent: index }));
    const value = make("span", { className: "value" }, number, make("span", { className: "unit", textContent: unit ?? "" }));
    return make("div", { className: "slider" }, title, sign, value, range);
  }
}

// The part of a range that is before its thumb, for the style sheet.
export function fill(range) {
  const share = (range.value - range.min) / (range.max - range.min);
  range.style.setProperty("--fill", `${share * 100}%`);
}

const STAGES = [
  ["read", "Read"],
  ["upload", "To the GPU"],
  ["preprocess", "Prepare"],
  ["inference", "Network"],
  ["postprocess", "Upsample"],
  ["crf", "Dense CRF"],
  ["download", "From the GPU"],
  ["encode", "Encode"],
  ["page", "Page"],
];

export function showTime(stages) {
  const rows = STAGES.filter(([stage]) => stage in stages);
  const total = rows.reduce((sum, [stage]) => sum + stages[stage], 0);
  element("time-total").textContent = rows.length ? milliseconds(total) : "";
  element("time-list").replaceChildren(
    ...rows.map(([stage, label]) => {
      const key = make("span", { className: `key stage-${stage}` });
      return make("div", {}, make("dt", {}, key, label), make("dd", { className: "figure", textContent: milliseconds(stages[stage]) }));
    }),
  );
  element("time-bar").replaceChildren(
    ...rows.map(([stage]) => {
      const part = make("span", { className: `stage-${stage}` });
      part.style.flexGrow = stages[stage] / total;
      return part;
    }),
  );
}

const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
