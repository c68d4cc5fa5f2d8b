// What overlap would chance give?  Mean and variance of "in at least k of n masks", exact, and an interval.
//
// In each module each mask is a set of the size observed, drawn at random.  N weights, aᵢ of them in mask i, pᵢ = aᵢ/N:
//
//     mean       E X_k = Σ_w P(w in at least k masks)
//     moments    E X_k X_j = Σ_w Σ_v P(w in at least k masks, v in at least j)
//
// Two different weights are both in mask i with chance aᵢ(aᵢ − 1)/(N(N − 1)).  A mask of neurons beside one of weights
// is drawn by whole rows.  Modules are independent, and their moments add up.

/** Of n masks: mean [n + 1] of X_0 … X_n and covariance [n + 1][n + 1], summed over modules { weights, columns, sizes }. */
function moments(modules, byRow) {
  const n = byRow.length, mean = Array(n + 1).fill(0);
  const covariance = mean.map(() => Array(n + 1).fill(0));
  for (const { weights, columns, sizes } of modules) {
    const p = sizes.map((size) => size / weights);
    const units = byRow.map((row) => (row ? weights / columns : weights)); // what is drawn: rows or weights
    const apart = p.map((share, i) => (share * (share * units[i] - 1)) / Math.max(units[i] - 1, 1));
    const oneRow = p.map((share, i) => (byRow[i] ? share : apart[i]));
    const [single, row, other] = [p, oneRow, apart].map((both) => tails(p, both));
    const own = mean.map((_, k) => weights * single[k][k]);
    for (let k = 0; k <= n; k++) {
      mean[k] += own[k];
      for (let j = 0; j <= n; j++) {
        const pairs = single[k][j] + (columns - 1) * row[k][j] + (weights - columns) * other[k][j];
        covariance[k][j] += weights * pairs - own[k] * own[j];
      }
    }
  }
  return { mean, covariance };
}

/** P(w in at least k, v in at least j masks), [k][j], where mask i holds w with p[i], w and v with both[i]. */
function tails(p, both) {
  const n = p.length;
  let law = Array.from({ length: n + 1 }, () => Array(n + 1).fill(0));
  law[0][0] = 1;
  p.forEach((either, i) => {
    const two = both[i], at = (k, j) => law[k]?.[j] ?? 0;
    law = law.map((row, k) => row.map((_, j) => (
      at(k, j) * (1 - 2 * either + two) + (at(k - 1, j) + at(k, j - 1)) * (either - two) + at(k - 1, j - 1) * two)));
  });
  for (let k = n; k >= 0; k--) for (let j = n; j >= 0; j--) {
    law[k][j] += (law[k + 1]?.[j] ?? 0) + (law[k][j + 1] ?? 0) - (law[k + 1]?.[j + 1] ?? 0);
  }
  return law;
}

const NORMAL = 100; // variance from which the interval is the normal one
const REACH = 1.959963984540054; // the normal distribution has 97.5 % below so many of its σ

/**
 * The central 95 % of a count of this mean and variance, both ends included.  Few overlaps are counted by the Panjer
 * distribution, whose chances follow each other:
 *     binomial (variance < mean)            P(k + 1)/P(k) = (s − k)/(k + 1) · (mean − variance)/variance
 *     Poisson                               P(k + 1)/P(k) = mean/(k + 1)
 *     negative binomial (variance > mean)   P(k + 1)/P(k) = (s + k)/(k + 1) · (variance − mean)/variance
 * with s = mean²/|mean − variance|; many by the normal distribution.
 */
function interval(mean, variance) {
  if (variance < 1e-9 * Math.max(mean, 1)) return [mean, mean];
  if (variance >= NORMAL) {
    const reach = REACH * Math.sqrt(variance);
    return [Math.max(0, mean - reach), mean + reach];
  }
  const poisson = Math.abs(variance / mean - 1) < 1e-6, binomial = !poisson && variance < mean;
  const s = mean ** 2 / Math.abs(mean - variance);
  const ratio = (k) => (poisson ? mean / (k + 1)
    : binomial ? ((s - k) / (k + 1)) * ((mean - variance) / variance)
      : ((s + k) / (k + 1)) * ((variance - mean) / variance));
  let log = poisson ? -mean : binomial ? s * Math.log(variance / mean) : s * Math.log(mean / variance);
  let below = Math.exp(log), low = null;
  for (let k = 0; ; k++) {
    if (binomial && k >= s) below = 1;
    if (low === null && below >= 0.025) low = k;
    if (below >= 0.975) return [low, k];
    log += Math.log(ratio(k));
    below += Math.exp(log);
  }
}
