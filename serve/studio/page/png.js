// Reader of the PNGs of class ids and confidences: one channel of 8 or 16 bits, not interlaced.
//
// A canvas would do for most, but it turns 16 bits into 8, and browsers that resist fingerprinting put noise on what is
// read from it.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const HEADER_BYTES = 8;
const CHECKSUM_BYTES = 4;

export async function readPng(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (SIGNATURE.some((value, index) => bytes[index] !== value)) throw new Error("not a PNG");
  const view = new DataView(bytes.buffer);
  const parts = [];
  let head;
  for (let at = SIGNATURE.length; at < bytes.length; ) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + HEADER_BYTES));
    const start = at + HEADER_BYTES;
    if (name === "IHDR") head = { width: view.getUint32(start), height: view.getUint32(start + 4), bits: bytes[start + 8] };
    if (name === "IDAT") parts.push(bytes.subarray(start, start + length));
    at = start + length + CHECKSUM_BYTES;
  }
  const inflated = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(inflated).arrayBuffer());
  return { width: head.width, height: head.height, values: decode(rows, head) };
}

function decode(rows, { width, height, bits }) {
  if (bits >= 8) {
    const raw = unfilter(rows, (width * bits) / 8, height, bits / 8);
    if (bits === 8) return raw;
    const values = new Uint16Array(width * height);
    for (let i = 0; i < values.length; i++) values[i] = (raw[2 * i] << 8) | raw[2 * i + 1];
    return values;
  }
  // Few classes make small palettes, and those less than 8 bits.
  const rowBytes = Math.ceil((width * bits) / 8);
  const raw = unfilter(rows, rowBytes, height, 1);
  const values = new Uint8Array(width * height);
  const mask = (1 << bits) - 1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const bit = x * bits;
      values[y * width + x] = (raw[y * rowBytes + (bit >> 3)] >> (8 - bits - (bit & 7))) & mask;
    }
  }
  return values;
}

// PNG's five filters (W3C PNG, 9.2), each of which predicts a byte from those to the left and above.
function unfilter(rows, rowBytes, height, pixelBytes) {
  const out = new Uint8Array(rowBytes * height);
  for (let y = 0; y < height; y++) {
    const from = y * (rowBytes + 1);
    const to = y * rowBytes;
    const kind = rows[from];
    for (let x = 0; x < rowBytes; x++) {
      const left = x >= pixelBytes ? out[to + x - pixelBytes] : 0;
      const above = y > 0 ? out[to + x - rowBytes] : 0;
      const corner = x >= pixelBytes && y > 0 ? out[to + x - rowBytes - pixelBytes] : 0;
      out[to + x] = rows[from + 1 + x] + predict(kind, left, above, corner);
    }
  }
  return out;
}

function predict(kind, left, above, corner) {
  if (kind === 0) return 0;
  if (kind === 1) return left;
  if (kind === 2) return above;
  if (kind === 3) return (left + above) >> 1;
  const estimate = left + above - corner;
  const toLeft = Math.abs(estimate - left);
  const toAbove = Math.abs(estimate - above);
  const toCorner = Math.abs(estimate - corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}
