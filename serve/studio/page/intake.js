// Images on their way in: dropped, pasted, chosen, or from the camera.

const element = (id) => document.getElementById(id);
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png"];

// Calls `take(blobs)` with image files, and `fail(error)`.
export function listenForImages({ take, fail }) {
  const file = element("file");
  const choose = () => file.click();
  element("choose").addEventListener("click", choose);
  element("open").addEventListener("click", choose);
  file.addEventListener("change", () => {
    const chosen = [...file.files];
    file.value = ""; // so that the same file may be chosen again
    if (chosen.length) take(chosen);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (!pasted.length) return;
    event.preventDefault();
    take(pasted);
  });
  listenForDrops(take);
  listenForCamera(take, fail);
  return { choose };
}

function listenForDrops(take) {
  const drop = element("drop");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (hasFiles(event)) drop.hidden = false;
  });
  addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.hidden = true;
  });
  addEventListener("drop", (event) => {
    drop.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
}

function listenForCamera(take, fail) {
  const dialog = element("camera-dialog");
  const video = element("video");
  let stream = null;
  element("camera").hidden = !navigator.mediaDevices;
  element("camera").addEventListener("click", async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      fail(new Error(`The camera cannot be used: ${error.message}.`));
      return;
    }
    element("shoot").disabled = true;
    video.srcObject = stream;
    dialog.showModal();
  });
  video.addEventListener("loadeddata", () => (element("shoot").disabled = false));
  element("camera-cancel").addEventListener("click", () => dialog.close());
  element("shoot").addEventListener("click", async () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    take([new File([blob], "camera.png", { type: "image/png" })]);
  });
  dialog.addEventListener("close", () => {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  });
}

// A file that the server reads: JPEG and PNG as they are, whatever else the browser knows (WebP, AVIF) as a PNG.
export async function readable(file, maxBytes) {
  if (SENT_AS_THEY_ARE.includes(file.type)) {
    checkBytes(file, maxBytes);
    return file;
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not an image that this browser can read.`);
  }
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  checkBytes(blob, maxBytes);
  return blob;
}

function checkBytes(blob, maxBytes) {
  if (blob.size <= maxBytes) return;
  const [size, most] = [blob.size, maxBytes].map((bytes) => (bytes / 2 ** 20).toFixed(1));
  throw new Error(`The image has ${size} MiB; this studio takes up to ${most} MiB. Make it smaller, or start the studio with --max-bytes.`);
}
