// Stage: the canvas with the image, one or two layers over it, the divider, and what is under the pointer.

import { ORIGINAL, nameOf, readLayer } from "./layers.js";

const SMALL_STEP = 0.02;
const LARGE_STEP = 0.1;
const CROSS_STEP = 1;
const CROSS_LEAP = 20;

const element = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class Stage {
  // Calls `inspect(layer)` when a layer is pointed at whose confidence is not there, and `say(text)` to be read out.
  constructor({ classes, inspect, say }) {
    Object.assign(this, { classes, inspect, say });
    this.canvas = element("canvas");
    this.frame = element("frame");
    this.divider = element("divider");
    this.context = this.canvas.getContext("2d");
    this.picture = null;
    this.view = { left: ORIGINAL, right: ORIGINAL, leftLayer: null, rightLayer: null, split: false, opacity: 0.6 };
    this.at = 0.5;
    this.point = null;
    this.cross = null;
    this.peeking = false;
    this.#listen();
  }

  setPicture(picture) {
    this.picture = picture;
    this.canvas.width = picture.width;
    this.canvas.height = picture.height;
    this.frame.style.setProperty("--ratio", picture.width / picture.height);
    this.frame.classList.toggle("is-small", picture.width < 400 && picture.height < 400);
    this.point = this.cross = null;
    this.draw();
  }

  setView(view) {
    this.view = { ...this.view, ...view };
    const { left, right, split } = this.view;
    this.divider.hidden = !split;
    element("tag-left").hidden = !split;
    element("tag-left").textContent = nameOf(left);
    element("tag-right").textContent = nameOf(right);
    this.frame.dataset.preview = Boolean(this.view.rightLayer && this.view.rightLayer.step > 1);
    this.draw();
  }

  peek(on) {
    this.peeking = on;
    this.draw();
  }

  draw() {
    if (this.picture === null) return;
    const { width, height } = this.canvas;
    const { left, right, leftLayer, rightLayer, split } = this.view;
    const edge = split ? Math.round(width * this.at) : 0;
    this.context.clearRect(0, 0, width, height);
    if (split) this.#drawSide(left, leftLayer, 0, edge);
    this.#drawSide(right, rightLayer, edge, width - edge);
    if (this.cross !== null) this.#drawCross();
    this.frame.style.setProperty("--at", `${this.at * 100}%`);
    this.#readOut();
  }

  // The picture as it is seen, without the cross and the divider.
  toBlob() {
    const cross = this.cross;
    this.cross = null;
    this.draw();
    return new Promise((resolve) => {
      this.canvas.toBlob(resolve, "image/png");
      this.cross = cross;
      this.draw();
    });
  }

  moveDivider(at) {
    this.at = clamp(at, 0, 1);
    this.divider.setAttribute("aria-valuenow", Math.round(this.at * 100));
    this.draw();
  }

  #drawSide(source, layer, x, width) {
    if (width <= 0) return;
    const { context, picture } = this;
    context.save();
    context.beginPath();
    context.rect(x, 0, width, picture.height);
    context.clip();
    context.drawImage(picture, 0, 0);
    if (source !== ORIGINAL && layer?.painted && !this.peeking) {
      context.globalAlpha = this.view.opacity;
      context.imageSmoothingEnabled = false;
      // A preview has every step-th pixel, which stands for a square of them; the last reach the edge, or beyond it.
      const [across, down] = [layer.width * layer.step, layer.height * layer.step];
      context.drawImage(layer.painted, 0, 0, Math.max(across, picture.width), Math.max(down, picture.height));
    }
    context.restore();
  }

  #drawCross() {
    const { context, canvas } = this;
    const arm = Math.max(6, canvas.width / 40);
    const { x, y } = this.cross;
    for (const [color, width] of [["#000", 3], ["#fff", 1]]) {
      context.strokeStyle = color;
      context.lineWidth = (width * canvas.width) / Math.max(1, this.frame.clientWidth);
      context.beginPath();
      context.moveTo(x + 0.5 - arm, y + 0.5);
      context.lineTo(x + 0.5 + arm, y + 0.5);
      context.moveTo(x + 0.5, y + 0.5 - arm);
      context.lineTo(x + 0.5, y + 0.5 + arm);
      context.stroke();
    }
  }

  // The words for a pixel: its class, and how sure it is.
  describe({ x, y }) {
    const isLeft = this.view.split && x < this.canvas.width * this.at;
    const layer = isLeft ? this.view.leftLayer : this.view.rightLayer;
    const source = isLeft ? this.view.left : this.view.right;
    if (source === ORIGINAL || layer === null) return null;
    const { label, confidence } = readLayer(layer, x, y);
    const { name, color } = this.classes[label];
    if (layer.confidence === null && layer.step === 1) this.inspect(layer);
    return { color, text: confidence === null ? name : `${name} · ${Math.round(confidence * 100)} %` };
  }

  #readOut() {
    const readout = element("readout");
    const point = this.cross ?? this.point;
    const found = point === null || this.peeking ? null : this.describe(point);
    readout.hidden = found === null;
    if (found === null) return;
    element("readout-text").textContent = found.text;
    element("readout-swatch").style.backgroundColor = `rgb(${found.color.join()})`;
    readout.style.setProperty("--x", `${(point.x / this.canvas.width) * 100}%`);
    readout.style.setProperty("--y", `${(point.y / this.canvas.height) * 100}%`);
    readout.classList.toggle("is-flipped", point.x > this.canvas.width * 0.6);
    readout.classList.toggle("is-below", point.y < this.canvas.height * 0.15);
  }

  #pointOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.canvas.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.canvas.height);
    return { x: clamp(x, 0, this.canvas.width - 1), y: clamp(y, 0, this.canvas.height - 1) };
  }

  #listen() {
    this.canvas.addEventListener("pointermove", (event) => {
      this.cross = null;
      this.point = this.#pointOf(event);
      this.draw();
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.point = null;
      this.draw();
    });
    this.canvas.addEventListener("blur", () => {
      this.cross = null;
      this.draw();
    });
    this.canvas.addEventListener("keydown", (event) => this.#moveCross(event));
    this.divider.addEventListener("pointerdown", (event) => {
      this.divider.setPointerCapture(event.pointerId);
      event.preventDefault();
      this.divider.focus();
    });
    this.divider.addEventListener("pointermove", (event) => {
      if (!this.divider.hasPointerCapture(event.pointerId)) return;
      const box = this.canvas.getBoundingClientRect();
      this.moveDivider((event.clientX - box.left) / box.width);
    });
    this.divider.addEventListener("keydown", (event) => this.#stepDivider(event));
  }

  #stepDivider(event) {
    const step = event.shiftKey ? LARGE_STEP : SMALL_STEP;
    const places = {
      ArrowLeft: this.at - step,
      ArrowDown: this.at - step,
      ArrowRight: this.at + step,
      ArrowUp: this.at + step,
      PageDown: this.at - LARGE_STEP,
      PageUp: this.at + LARGE_STEP,
      Home: 0,
      End: 1,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.moveDivider(places[event.key]);
  }

  #moveCross(event) {
    const step = event.shiftKey ? CROSS_LEAP : CROSS_STEP;
    const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (!(event.key in steps) || this.picture === null) return;
    event.preventDefault();
    const from = this.cross ?? this.point ?? { x: this.canvas.width >> 1, y: this.canvas.height >> 1 };
    const [dx, dy] = steps[event.key];
    this.cross = { x: clamp(from.x + dx, 0, this.canvas.width - 1), y: clamp(from.y + dy, 0, this.canvas.height - 1) };
    this.draw();
    const found = this.describe(this.cross);
    this.say(`${found?.text ?? "no labels"}, column ${this.cross.x}, row ${this.cross.y}`);
  }
}
