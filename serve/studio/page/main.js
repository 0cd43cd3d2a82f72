// The page: its state, and what happens when.

import { Refusal, getConfig, getPicture, isAbort, sendImage, setToken, writeCrf } from "./api.js";
import { listenForImages, readable } from "./intake.js";
import { ORIGINAL, isRefined, loadConfidence, loadLayer, nameOf, paintLayer, precisionOf, sourceOf } from "./layers.js";
import { Legend, Sliders, fill, make, showTime } from "./panels.js";
import { Refiner } from "./refiner.js";
import { cliSnippet, pythonSnippet } from "./snippets.js";
import { Stage } from "./stage.js";

const THUMBNAIL_PX = 112;
const OPACITY_STEP = 5;
const BUSY_AFTER_MS = 120;
const NOT_FOUND = 404;
const UNAUTHORIZED = 401;
//: Measure of the time from a slider's event to the frame that shows its preview, for the browser's profiler.
const SLIDER_MEASURE = "atrous: slider to preview";

const element = (id) => document.getElementById(id);

class Studio {
  constructor(config) {
    this.config = config;
    this.images = [];
    this.image = null;
    this.refiners = new Map();
    this.waits = 0;
    this.language = "python";
    this.left = ORIGINAL;
    this.right = config.precisions[0];
    this.split = false;
    const classes = config.classes;
    this.stage = new Stage({ classes, inspect: (layer) => this.inspect(layer), say });
    this.legend = new Legend(classes, () => this.repaint());
    this.sliders = new Sliders(config.crf, config.most_iterations, (crf, start) => this.tune(crf, start));
    this.intake = listenForImages({ take: (files) => this.take(files), fail: (error) => this.fail(error) });
    this.describeBundle();
    this.listSources();
    this.listen();
    this.setOpacity(Math.round(config.alpha * 100));
    this.showSnippet();
  }

  describeBundle() {
    const { name, backend, device, bands } = this.config;
    const parts = [`${backend} on the ${device}`, ...(bands ? [`bands ${bands.join(", ")}`] : [])];
    element("bundle").replaceChildren(make("strong", { textContent: name }), make("span", { textContent: parts.join(" · ") }));
    document.title = `${name} · atrous studio`;
    element("crf-write").hidden = !this.config.writable;
  }

  listSources() {
    const sources = [ORIGINAL, ...this.config.precisions.flatMap((each) => [sourceOf(each, false), sourceOf(each, true)])];
    for (const side of ["left", "right"]) {
      element(side).replaceChildren(...sources.map((value) => make("option", { value, textContent: nameOf(value) })));
      element(side).value = this[side];
    }
  }

  listen() {
    for (const side of ["left", "right"]) {
      element(side).addEventListener("change", () => {
        this[side] = element(side).value;
        this.show();
      });
    }
    element("split").addEventListener("click", () => this.setSplit(!this.split));
    element("crf-on").addEventListener("change", () => this.setRefined(element("crf-on").checked));
    element("opacity").addEventListener("input", () => this.setOpacity(Number(element("opacity").value)));
    element("save").addEventListener("click", () => this.save());
    element("save-labels").addEventListener("click", () => this.saveLabels());
    element("crf-reset").addEventListener("click", () => {
      this.sliders.set(this.config.crf);
      this.tune(this.config.crf, performance.now(), { turnOn: false });
    });
    element("crf-write").addEventListener("click", () => this.write());
    element("copy").addEventListener("click", () => this.copy());
    for (const language of ["python", "cli"]) {
      element(`tab-${language}`).addEventListener("click", () => this.setLanguage(language));
      element(`tab-${language}`).addEventListener("keydown", (event) => {
        if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
        const other = language === "python" ? "cli" : "python";
        this.setLanguage(other);
        element(`tab-${other}`).focus();
      });
    }
    element("alert-close").addEventListener("click", () => (element("alert").hidden = true));
    element("keys-open").addEventListener("click", () => element("keys-dialog").showModal());
    document.addEventListener("keydown", (event) => this.pressKey(event));
    document.addEventListener("keyup", (event) => {
      if (event.key === " ") this.stage.peek(false);
    });
  }

  // Segment files, one after the other; the last is shown.
  async take(files) {
    element("alert").hidden = true;
    for (const file of files) {
      await this.working(async () => {
        const blob = await readable(file, this.config.max_bytes);
        say(`Sending ${file.name}`);
        const { id } = await sendImage(blob);
        const picture = await getPicture(id);
        const image = { id, blob, picture, name: file.name || "pasted.png", layers: new Map(), crf: null };
        this.images.push(image);
        this.listImages();
        this.choose(image);
      });
    }
  }

  choose(image) {
    this.refiners.forEach((refiner) => refiner.end());
    this.refiners.clear();
    this.image = image;
    element("empty").hidden = true;
    element("viewer").hidden = false;
    document.body.classList.add("is-loaded");
    this.stage.setPicture(image.picture);
    this.listImages();
    this.show();
  }

  listImages() {
    const strip = element("strip");
    strip.hidden = this.images.length < 2;
    strip.replaceChildren(
      ...this.images.map((image) => {
        const thumbnail = make("canvas");
        const scale = THUMBNAIL_PX / Math.max(image.picture.width, image.picture.height);
        thumbnail.width = Math.max(1, Math.round(image.picture.width * scale));
        thumbnail.height = Math.max(1, Math.round(image.picture.height * scale));
        thumbnail.getContext("2d").drawImage(image.picture, 0, 0, thumbnail.width, thumbnail.height);
        const button = make("button", { type: "button", title: image.name }, thumbnail);
        button.setAttribute("aria-label", image.name);
        button.setAttribute("aria-current", image === this.image);
        button.addEventListener("click", () => this.choose(image));
        return make("li", {}, button);
      }),
    );
  }

  get sides() {
    return this.split ? [this.left, this.right] : [this.right];
  }

  // Show what is chosen: layers that are there at once, others as they come.
  show() {
    element("left").value = this.left;
    element("right").value = this.right;
    element("crf-on").checked = isRefined(this.right);
    this.drawView();
    this.showSnippet();
    if (this.image === null) return;
    for (const source of new Set(this.sides)) {
      if (source === ORIGINAL) continue;
      const crf = this.sliders.value;
      if (!isRefined(source)) this.load(source);
      else if (this.image.layers.get(source)?.key !== keyOf(crf)) this.refiner(source).settle(crf);
    }
  }

  async load(source) {
    const { image } = this;
    if (image.layers.has(source)) return;
    await this.working(async () => {
      const layer = await this.ask(image, (id) => loadLayer(id, source, null, { classes: this.config.classes.length }));
      this.keep(image, source, layer, "");
    });
  }

  refiner(source) {
    if (!this.refiners.has(source)) {
      const { image } = this;
      const classes = this.config.classes.length;
      const refiner = new Refiner({
        load: (crf, options) => this.ask(image, (id) => loadLayer(id, source, crf, { classes, ...options })),
        show: (layer, { crf, start }) => {
          this.keep(image, source, layer, layer.step === 1 ? keyOf(crf) : null);
          if (start !== undefined) requestAnimationFrame(() => afterPaint(() => performance.measure(SLIDER_MEASURE, { start })));
        },
        fail: (error) => this.fail(error),
        busy: (change) => this.wait(change),
      });
      this.refiners.set(source, refiner);
    }
    return this.refiners.get(source);
  }

  // Ask about an image by its id; one that the server forgot is sent again.
  async ask(image, question) {
    try {
      return await question(image.id);
    } catch (error) {
      if (error.status !== NOT_FOUND) throw error;
      image.id = (await sendImage(image.blob)).id;
      return question(image.id);
    }
  }

  keep(image, source, layer, key) {
    const start = performance.now();
    layer.key = key;
    paintLayer(layer, this.config.classes, this.legend.hidden);
    image.layers.set(source, layer);
    if (image !== this.image) return;
    this.drawView();
    layer.stages.page = layer.decodeMs + performance.now() - start;
    this.showNumbers();
    if (layer.step === 1 && source === this.right) say(`${image.name}, ${nameOf(source)}: ${this.summary(layer)}`);
  }

  summary(layer) {
    const shares = [...layer.shares.entries()].sort(([, a], [, b]) => b - a).slice(0, 3);
    return shares
      .filter(([, share]) => share > 0)
      .map(([id, share]) => `${this.config.classes[id].name} ${Math.round(share * 100)} %`)
      .join(", ");
  }

  layerOf(source) {
    return this.image?.layers.get(source) ?? null;
  }

  drawView() {
    const { left, right, split } = this;
    this.stage.setView({ left, right, split, leftLayer: this.layerOf(left), rightLayer: this.layerOf(right) });
    this.showNumbers();
  }

  showNumbers() {
    const layer = this.layerOf(this.right);
    this.legend.setShares(layer?.shares ?? null);
    if (layer) showTime(layer.stages);
  }

  repaint() {
    for (const source of [this.left, this.right]) {
      const layer = this.layerOf(source);
      if (layer) paintLayer(layer, this.config.classes, this.legend.hidden);
    }
    // Those that are not seen are painted when they are.
    this.image?.layers.forEach((layer, source) => {
      if (![this.left, this.right].includes(source)) paintLayer(layer, this.config.classes, this.legend.hidden);
    });
    this.stage.draw();
  }

  async inspect(layer) {
    if (layer.asked) return;
    layer.asked = true;
    const { image } = this;
    try {
      await this.ask(image, (id) => loadConfidence(id, layer));
      this.stage.draw();
    } catch (error) {
      this.fail(error);
    }
  }

  setSplit(split) {
    this.split = split;
    element("split").setAttribute("aria-pressed", split);
    element("left-field").hidden = !split;
    element("right-name").textContent = split ? "Right" : "Show";
    this.show();
    say(split ? `Split view: ${nameOf(this.left)} and ${nameOf(this.right)}` : "Split view off");
  }

  setRefined(refined) {
    const precision = this.right === ORIGINAL ? this.config.precisions[0] : precisionOf(this.right);
    this.right = sourceOf(precision, refined);
    this.show();
  }

  setOpacity(percent) {
    const opacity = element("opacity");
    opacity.value = percent;
    fill(opacity);
    element("opacity-value").textContent = `${opacity.value} %`;
    this.stage.setView({ opacity: opacity.value / 100 });
    this.showSnippet();
  }

  // Follow a slider: the CRF comes on, and everything that shows it is computed again.
  tune(crf, start, { turnOn = true } = {}) {
    if (turnOn && !this.sides.some(isRefined)) {
      this.setSource("right", sourceOf(this.right === ORIGINAL ? this.config.precisions[0] : this.right, true));
    }
    this.showSnippet();
    if (this.image === null) return;
    for (const source of new Set(this.sides.filter(isRefined))) this.refiner(source).follow(crf, start);
  }

  setSource(side, source) {
    this[side] = source;
    element(side).value = source;
    element("crf-on").checked = isRefined(this.right);
    this.drawView();
  }

  async save() {
    if (this.image === null) return;
    download(await this.stage.toBlob(), `${stem(this.image.name)}.overlay.png`);
    say("Saved the overlay");
  }

  async saveLabels() {
    const layer = this.layerOf(this.right);
    if (layer === null || layer.step > 1) {
      toast("There are no labels yet");
      return;
    }
    download(layer.blob, `${stem(this.image.name)}.labels.png`);
    say("Saved the labels");
  }

  async write() {
    await this.working(async () => {
      const { params, iterations } = this.sliders.value;
      const config = await writeCrf({ ...params, iterations });
      this.config.crf = config.crf;
      toast("Written to the bundle");
    });
  }

  setLanguage(language) {
    this.language = language;
    for (const each of ["python", "cli"]) {
      element(`tab-${each}`).setAttribute("aria-selected", each === language);
      element(`tab-${each}`).tabIndex = each === language ? 0 : -1;
    }
    element("snippet").setAttribute("aria-labelledby", `tab-${language}`);
    this.showSnippet();
  }

  showSnippet() {
    const source = this.right === ORIGINAL ? this.config.precisions[0] : this.right;
    const settings = {
      bundle: this.config.bundle,
      precision: precisionOf(source),
      crf: isRefined(source) ? this.sliders.value : null,
      opacity: element("opacity").value / 100,
      photo: this.image?.name ?? "photo.jpg",
    };
    element("snippet").textContent = this.language === "python" ? pythonSnippet(settings) : cliSnippet(settings);
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(element("snippet").textContent);
      toast("Copied");
    } catch {
      // Over plain HTTP from another machine there is no clipboard.
      getSelection().selectAllChildren(element("snippet"));
      toast("Selected: press Ctrl+C");
    }
  }

  pressKey(event) {
    if (document.querySelector("dialog[open]")) return;
    const isSave = (event.ctrlKey || event.metaKey) && event.key === "s";
    if (isSave && this.image) {
      event.preventDefault();
      this.save();
      return;
    }
    const isTyping = event.target.closest("select, pre, input:not([type=range]):not([type=checkbox])");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    const keys = {
      o: () => this.intake.choose(),
      s: () => this.setSplit(!this.split),
      c: () => this.setRefined(!isRefined(this.right)),
      "[": () => this.setOpacity(Number(element("opacity").value) - OPACITY_STEP),
      "]": () => this.setOpacity(Number(element("opacity").value) + OPACITY_STEP),
      0: () => this.legend.showAll(),
      "?": () => element("keys-dialog").showModal(),
    };
    if (event.key === " " && !event.target.closest("button, input, a")) {
      event.preventDefault();
      this.stage.peek(true);
    } else if (/^[1-9]$/.test(event.key)) {
      this.legend.toggle(Number(event.key) - 1);
    } else {
      keys[event.key.toLowerCase()]?.();
    }
  }

  // Do something that may take a while, and say what went wrong.
  async working(work) {
    this.wait(1);
    try {
      await work();
    } catch (error) {
      this.fail(error);
    } finally {
      this.wait(-1);
    }
  }

  wait(change) {
    this.waits += change;
    clearTimeout(this.busyTimer);
    document.body.setAttribute("aria-busy", this.waits > 0);
    if (this.waits === 0) element("busy").hidden = true;
    else this.busyTimer = setTimeout(() => (element("busy").hidden = false), BUSY_AFTER_MS);
  }

  fail(error) {
    if (isAbort(error)) return;
    if (error.status === UNAUTHORIZED) {
      askForToken();
      return;
    }
    element("alert-text").textContent = error.message;
    element("alert").hidden = false;
  }
}

const keyOf = (crf) => JSON.stringify(crf);
const stem = (name) => name.replace(/\.[^.]+$/, "");

function afterPaint(callback) {
  const channel = new MessageChannel();
  channel.port1.onmessage = callback;
  channel.port2.postMessage(null);
}

// Words for a screen reader.
function say(text) {
  element("status").textContent = text;
}

let toastTimer = 0;

function toast(text) {
  say(text);
  const box = element("toast");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), 2400);
}

function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function askForToken() {
  const dialog = element("token-dialog");
  if (!dialog.open) dialog.showModal();
}

element("token-form").addEventListener("submit", () => {
  setToken(element("token").value);
  start();
});

let studio = null;

async function start() {
  try {
    studio ??= new Studio(await getConfig());
  } catch (error) {
    if (error instanceof Refusal && error.status === UNAUTHORIZED) askForToken();
    else {
      element("alert-text").textContent = error.message;
      element("alert").hidden = false;
    }
  }
}

start();
