// Layers: the labels of an image as one precision, with or without the CRF, gives them, ready to be drawn.

import { getMap } from "./api.js";
import { readPng } from "./png.js";

export const ORIGINAL = "original";
const REFINED = "+crf";

export const sourceOf = (precision, refined) => precision + (refined ? REFINED : "");
export const isRefined = (source) => source.endsWith(REFINED);
export const precisionOf = (source) => source.replace(REFINED, "");

export function nameOf(source) {
  if (source === ORIGINAL) return "Original";
  return precisionOf(source).toUpperCase() + (isRefined(source) ? " + CRF" : "");
}

function queryOf(source, crf, preview) {
  const query = { precision: precisionOf(source) };
  if (!isRefined(source)) return query;
  return { ...query, ...crf.params, iterations: crf.iterations, crf: true, preview };
}

export async function loadLayer(id, source, crf, { preview = false, signal, classes } = {}) {
  const query = queryOf(source, crf, preview);
  const answer = await getMap(id, "labels", query, signal);
  const start = performance.now();
  const map = await readPng(answer.blob);
  const counts = new Float64Array(classes);
  for (const value of map.values) counts[value] += 1;
  return {
    ...map,
    step: answer.step,
    blob: answer.blob,
    query,
    stages: answer.stages,
    shares: counts.map((count) => count / map.values.length),
    decodeMs: performance.now() - start,
    confidence: null,
    painted: null,
  };
}

export async function loadConfidence(id, layer) {
  const answer = await getMap(id, "confidence", layer.query);
  layer.confidence = (await readPng(answer.blob)).values;
}

// The layer in the colours of its classes, those that are hidden transparent.
export function paintLayer(layer, classes, hidden) {
  const table = new Uint8ClampedArray(4 * classes.length);
  classes.forEach(({ color }, index) => table.set([...color, hidden.has(index) ? 0 : 255], 4 * index));
  const colors = new Uint32Array(table.buffer);
  const image = new ImageData(layer.width, layer.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colors[layer.values[i]];
  layer.painted ??= document.createElement("canvas");
  layer.painted.width = layer.width;
  layer.painted.height = layer.height;
  layer.painted.getContext("2d").putImageData(image, 0, 0);
}

// The class at a pixel of the whole image, and its probability where that is known.
export function readLayer(layer, x, y) {
  const column = Math.min(layer.width - 1, Math.floor(x / layer.step));
  const row = Math.min(layer.height - 1, Math.floor(y / layer.step));
  const at = row * layer.width + column;
  return { label: layer.values[at], confidence: layer.confidence ? layer.confidence[at] / 255 : null };
}
