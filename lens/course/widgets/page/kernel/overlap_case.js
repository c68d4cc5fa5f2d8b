// How much do two or three subnetworks share, in all, in each layer and at each site, beside what chance would give?
//
//     IoU = |∩| / |∪|

/**
 * settings: { masks: digests, k }.  Two or three of them by number, `of`, with all their parts; or, with a typed
 * `prompt`, what the model says without what they share and without what only some have.
 */
async function overlapCase(kernel, request, { masks: digests, k }, breathe) {
  const given = Array.isArray(request.of) ? request.of : [];
  const of = each(given.filter((i) => Number.isInteger(i) && i >= 0 && i < digests.length)).sort((a, b) => a - b);
  if (of.length < 2 || of.length > 3) throw new Error("Choose two or three different subnetworks.");
  const some = [], name = of.join(",");
  if ("prompt" in request && !k) {
    throw new Error("This explorer has no model to ask: give it one, OverlapExplorer(subnetworks, lm).");
  }
  for (const i of of) {
    some.push(await openMask(kernel, digests[i]));
    await breathe();
  }
  if ("prompt" in request) {
    return { of: name, ...(await regionCase(kernel, rightStripped(asked(request, "prompt")), some, k, breathe)) };
  }
  const neurons = some.map((masks) => masks[0].neurons);
  const byRow = neurons.map((row) => row && !neurons.every(Boolean));
  const modules = some[0].map(({ layer, site }, place) => ({ layer, site, ...counted(some.map((masks) => masks[place])) }));
  const parts = [
    ...layersOf(modules).map((layer) => modules.filter((one) => one.layer === layer)),
    ...sitesOf(modules).map((site) => modules.filter((one) => one.site === site)),
  ];
  return { of: name, found: [modules, ...parts].map((part) => overlapRow(part, byRow)) };
}

/** One module of n masks: how many `weights` (or neurons), `columns` in a row, and `counts` [2ⁿ] of which masks hold one. */
function counted(masks) {
  const { rows, columns } = masks[0];
  const { neurons, packed } = sameUnits(masks), width = neurons ? 1 : columns;
  const counts = Array(1 << masks.length).fill(0);
  for (let byte = 0; byte < packed[0].length; byte++) {
    if (!packed.some((bits) => bits[byte])) continue;
    for (let bit = 0; bit < 8; bit++) counts[packed.reduce((held, bits, i) => held | (((bits[byte] >> bit) & 1) << i), 0)]++;
  }
  counts[0] = rows * width - counts.slice(1).reduce((sum, count) => sum + count, 0);
  return { weights: rows * width, columns: width, counts };
}

/** The bits of n masks of one module, all of neurons where all are, else all of weights: { neurons, packed }. */
function sameUnits(masks) {
  const neurons = masks.every((one) => one.neurons);
  return { neurons, packed: masks.map((one) => (one.neurons && !neurons ? byWeights(one) : one.bits)) };
}

/** Neurons with all their weights. */
function byWeights({ rows, columns, bits }) {
  const wide = new Uint8Array(Math.ceil((rows * columns) / 8));
  for (let i = 0; i < rows * columns; i++) {
    const row = Math.floor(i / columns);
    wide[i >> 3] |= ((bits[row >> 3] >> (row & 7)) & 1) << (i & 7);
  }
  return wide;
}

/** [number of weights, sizes, regions, in all, IoU], as the explorer's state has them. */
function overlapRow(modules, byRow) {
  const n = byRow.length, patterns = 1 << n;
  const sum = (value) => modules.reduce((total, module) => total + value(module), 0);
  const held = (counts, is) => counts.reduce((total, count, pattern) => total + (is(pattern) ? count : 0), 0);
  const total = sum(({ weights }) => weights);
  const sizes = byRow.map((_, i) => sum(({ counts }) => held(counts, (pattern) => (pattern >> i) & 1)));
  /** Moments of the masks in `inside` and of the complements of the others. */
  const chanceOf = (inside) => moments(modules.map(({ weights, columns, counts }) => ({
    weights,
    columns,
    sizes: byRow.map((_, i) => held(counts, (pattern) => ((pattern >> i) & 1) === ((inside >> i) & 1))),
  })), byRow);
  const regions = [];
  for (let inside = 1; inside < patterns; inside++) {
    regions.push([sum(({ counts }) => counts[inside]), wholeIfLarge(chanceOf(inside).mean[n])]);
  }
  const { mean, covariance } = chanceOf(patterns - 1);
  const both = sum(({ counts }) => counts[patterns - 1]), any = total - sum(({ counts }) => counts[0]);
  const [low, high] = interval(mean[n], covariance[n][n]);
  const shared = [both, ...[mean[n], low, Math.min(high, total)].map(wholeIfLarge)];
  return [total, sizes, regions, shared, intersectionOverUnion(both, any, mean, covariance, n)];
}

/** [observed, expected, low, high]; chance to the second order in the spread of intersection and union. */
function intersectionOverUnion(both, any, mean, covariance, n) {
  if (!any) return [1, 1, 1, 1];
  const base = mean[1], ratio = mean[n] / base;
  const spread = covariance[n][n] - 2 * ratio * covariance[n][1] + ratio ** 2 * covariance[1][1];
  const expected = ratio + (ratio * covariance[1][1] - covariance[n][1]) / base ** 2;
  const [low, high] = interval(expected * base, Math.max(0, spread));
  return [both / any, expected, low / base, Math.min(1, high / base)];
}

/** Large counts without their fraction. */
function wholeIfLarge(value) {
  return value >= 100 ? Math.round(value) : value;
}
