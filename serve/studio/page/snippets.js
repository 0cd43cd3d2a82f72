// The settings of the page as code that gives the same labels.

const NAMES = ["bilateral_weight", "bilateral_sigma_xy_px", "bilateral_sigma_rgb", "gaussian_weight", "gaussian_sigma_xy_px", "unary_temperature"];

const pythonText = (text) => JSON.stringify(text); // valid in Python, too
const shellText = (text) => (/^[\w./:=@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const pythonFloat = (value) => (Number.isInteger(value) ? `${value}.0` : `${value}`);

export function pythonSnippet({ bundle, precision, crf, opacity, photo }) {
  const lines = ["import atrous"];
  const options = [`precision=${pythonText(precision)}`];
  if (crf) {
    lines.push("from atrous.crf import CRFParams, DenseCRF", "", "params = CRFParams(");
    for (const name of NAMES) lines.push(`    ${name}=${pythonFloat(crf.params[name])},`);
    lines.push(")", `crf = DenseCRF(params, iterations=${crf.iterations})`);
    options.push("crf=crf");
  } else {
    lines.push("");
  }
  lines.push(
    `segmenter = atrous.load(${pythonText(bundle)}, ${options.join(", ")})`,
    `result = segmenter(${pythonText(photo)})`,
    `result.overlay(${opacity}).save("overlay.png")`,
  );
  return lines.join("\n");
}

export function cliSnippet({ bundle, precision, crf, opacity, photo }) {
  const lines = [];
  const command = ["atrous run", shellText(bundle), shellText(photo), `--precision ${precision}`];
  if (crf) {
    lines.push("cat > crf.json <<'END'", JSON.stringify({ ...crf.params, iterations: crf.iterations }, null, 1), "END");
    command.push("--crf-params crf.json");
  }
  lines.push([...command, `--alpha ${opacity}`].join(" "));
  return lines.join("\n");
}
