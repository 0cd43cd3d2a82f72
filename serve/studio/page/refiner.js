// Refiner: keeps one refined layer up with sliders, coarse while they move, whole when they rest.
//
// One preview is on its way at a time, and of the parameters that came meanwhile the newest goes next: to cancel a
// preview for each movement would show none. What is computed at full size is cancelled by the next movement.

import { isAbort } from "./api.js";

const REST_MS = 140;

export class Refiner {
  // load(crf, {preview, signal}) gives a layer; show(layer, {start}) shows it; fail(error) says what went wrong.
  constructor({ load, show, fail, busy }) {
    Object.assign(this, { load, show, fail, busy });
    this.waiting = null;
    this.previewing = false;
    this.timer = 0;
    this.whole = null;
    this.ended = false;
  }

  // Preview these parameters, which an input event of time `start` chose, and refine the whole image after a rest.
  async follow(crf, start) {
    this.#cancelWhole();
    this.waiting = { crf, start };
    if (this.previewing) return;
    this.previewing = true;
    let last = null;
    while (this.waiting !== null && !this.ended) {
      last = this.waiting;
      this.waiting = null;
      const layer = await this.#try(() => this.load(last.crf, { preview: true }));
      if (layer !== null && !this.ended) this.show(layer, last);
      if (layer === null || layer.step === 1) last = null;
    }
    this.previewing = false;
    if (last !== null && !this.ended) this.timer = setTimeout(() => this.settle(last.crf), REST_MS);
  }

  // Refine the whole image.
  async settle(crf) {
    this.#cancelWhole();
    const whole = new AbortController();
    this.whole = whole;
    this.busy(1);
    const layer = await this.#try(() => this.load(crf, { preview: false, signal: whole.signal }));
    this.busy(-1);
    if (layer !== null && !whole.signal.aborted) this.show(layer, { crf });
  }

  end() {
    this.ended = true;
    this.waiting = null;
    this.#cancelWhole();
  }

  #cancelWhole() {
    clearTimeout(this.timer);
    this.whole?.abort();
    this.whole = null;
  }

  async #try(work) {
    try {
      return await work();
    } catch (error) {
      if (!isAbort(error) && !this.ended) this.fail(error);
      return null;
    }
  }
}
